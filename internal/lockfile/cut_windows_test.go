package lockfile_test

var cutTests = []cutTest{
	{`a\lock`, "a", "lock"},
	{`a\/\lock`, "a", "lock"},
	{`\lock`, `\`, "lock"},
	{`C:\lock`, `C:\`, "lock"},
	{`C:\\lock`, `C:\\`, "lock"},
	{`C:\a\lock`, `C:\a`, "lock"},
	{`C:\`, `C:\`, ""},
	{`C:`, `C:`, ""},
	{`C:lock`, `C:`, "lock"}, // in the current directory of the drive
	{`C:a\lock`, `C:a`, "lock"},
	{`C:..\lock`, `C:..`, "lock"},
	{`\\host\share\lock`, `\\host\share\`, "lock"},
	{`\\host\share\a\lock`, `\\host\share\a`, "lock"},
	{`\\host\share\`, `\\host\share\`, ""},
	{`\\host\share`, `\\host\share`, ""},
	{`//host/share/lock`, `//host/share/`, "lock"},
	{`\\?\C:\lock`, `\\?\C:\`, "lock"},
	{`\\?\C:\a\lock`, `\\?\C:\a`, "lock"},
	{`\\?\UNC\host\share\lock`, `\\?\UNC\host\share`, "lock"}, // see filepath.VolumeName
	{`\\?\UNC\host\share\a\lock`, `\\?\UNC\host\share\a`, "lock"},
	{`\\.\C:\lock`, `\\.\C:\`, "lock"},
}
