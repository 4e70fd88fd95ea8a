package claim

import (
	"fmt"

	"golang.org/x/sys/windows"
)

// A claim is a named event that exists: it goes with its last handle, so when the process dies.
// Other sessions do not see it.
func name(volume, file uint64) *uint16 {
	name, _ := windows.UTF16PtrFromString(fmt.Sprintf(`Local\fasteners-%x-%x-claim`, volume, file))
	return name
}

// Make claims the lock on a file, until drop is called.
func Make(volume, file uint64) (drop func()) {
	// An error may come with a handle: the event exists.
	event, _ := windows.CreateEventEx(nil, name(volume, file), 0, windows.SYNCHRONIZE)
	return func() { _ = windows.CloseHandle(event) }
}

// Made reports whether another process claims the lock on a file.
func Made(volume, file uint64) bool {
	event, err := windows.OpenEvent(windows.SYNCHRONIZE, false, name(volume, file))
	if err != nil {
		return false
	}
	_ = windows.CloseHandle(event)
	return true
}
