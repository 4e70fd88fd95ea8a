//go:build unix

package lockfile_test

var cutTests = []cutTest{
	{"//", "//", ""},
	{"//lock", "//", "lock"},
	{"//a/lock", "//a", "lock"},
	{`a\b`, ".", `a\b`},
	{"a\nb/c", "a\nb", "c"},
}
