// Package printable makes text safe to print that others have chosen: another user names files
// and programs, and what a name contains must not forge a line of a log or control a terminal.
package printable

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text returns s with all that is not graphic written as in a Go string: control characters,
// line separators, marks that change the direction of text, and bytes that are no UTF-8. It
// returns s itself if there is nothing of that kind.
func Text(s string) string {
	if Is(s) {
		return s
	}
	var safe strings.Builder
	for i, r := range s {
		size := utf8.RuneLen(r)
		if r == utf8.RuneError {
			_, size = utf8.DecodeRuneInString(s[i:]) // 1 if it is no UTF-8
		}
		if part := s[i : i+size]; Is(part) {
			safe.WriteString(part)
		} else {
			quoted := strconv.Quote(part)
			safe.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return safe.String()
}

// Is reports whether s can be printed as it is.
func Is(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) })
}
