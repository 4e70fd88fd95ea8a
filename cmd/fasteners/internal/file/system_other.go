//go:build unix && !linux && !darwin && !freebsd

package file

func systemOf(string) System { return System{} }
