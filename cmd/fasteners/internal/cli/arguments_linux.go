package cli

import (
	"fmt"
	"os"
	"strings"
)

// arguments returns those that a process was started with, the name of the
// program first, or nothing if they are unknown.
func arguments(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}
