package process

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func TestOwnProcess(t *testing.T) {
	want := filepath.Base(os.Args[0])
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" && runtime.GOOS != "windows" {
		want = ""
	}
	got := Command(os.Getpid())
	if emulator := os.Getenv("FASTENERS_TEST_EMULATOR"); emulator != "" { // it is what the system sees
		want = filepath.Base(emulator)[:len(got)]
	}
	if got == "" && want != "" || got != want {
		t.Errorf("command is %q, want %q", got, want)
	}
	for _, at := range []time.Time{{}, time.Now()} {
		if !Existed(os.Getpid(), at) {
			t.Errorf("this process does not exist at %v", at)
		}
	}
	if runtime.GOOS == "linux" && Existed(os.Getpid(), Boot()) {
		t.Error("this process existed when the machine was started")
	}
}

// A PID beyond the largest one (pid_max of proc_sys_kernel(5), 4,194,304) is of no process.
func TestNoProcess(t *testing.T) {
	const pid = 1<<22 + 1
	if Existed(pid, time.Time{}) || Existed(pid, time.Now()) || Command(pid) != "" {
		t.Errorf("process %d exists, and runs %q", pid, Command(pid))
	}
}
