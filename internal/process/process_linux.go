package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func command(pid int) string {
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	name := strings.TrimSpace(string(comm))
	const longest = 15 // what the kernel keeps of it: proc_pid_comm(5)
	if len(name) < longest {
		return name
	}
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	path, _, _ := strings.Cut(string(line), "\x00")
	if base := filepath.Base(path); strings.HasPrefix(base, name) {
		return base
	}
	return name
}
