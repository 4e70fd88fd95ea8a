package printable

import "testing"

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "",
		"report.lock":                  "report.lock",
		`C:\temp\new "a" (b)`:          `C:\temp\new "a" (b)`,
		"Grüße, 世界 \u00a0 e\u0301 🔒":   "Grüße, 世界 \u00a0 e\u0301 🔒",
		"\ufffd":                       "\ufffd",                       // U+FFFD itself, which is what a decoder makes of bad bytes
		"a\nlevel=ERROR":               `a\nlevel=ERROR`,               // a line
		"\x1b]0;title\x07\x1b[2Kx":     `\x1b]0;title\a\x1b[2Kx`,       // what a terminal obeys
		"\u009b2K\u0085":               `\u009b2K\u0085`,               // the same, as one character (C1)
		"\r\t\b\x00\x7f":               `\r\t\b\x00\x7f`,               //
		"a\xff\xc3(\xed\xa0\x80":       `a\xff\xc3(\xed\xa0\x80`,       // no UTF-8
		"\xe2\x80":                     `\xe2\x80`,                     // the beginning of a character
		"gnp.\u202etxt":                `gnp.\u202etxt`,                // direction of text
		"a\u2028b\u2029c":              `a\u2028b\u2029c`,              // separators of lines
		"\u200b\u00ad\ufeff\U000e0041": `\u200b\u00ad\ufeff\U000e0041`, // invisible
	} {
		if got := Text(text); got != want {
			t.Errorf("%q is printed as %q, want %q", text, got, want)
		}
		if Is(text) != (text == want) {
			t.Errorf("%q: printable is %t", text, Is(text))
		}
	}
}
