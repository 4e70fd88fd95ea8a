//go:build linux || windows

package claim

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// With this set the test binary makes a claim and waits for the end of its input.
const claimVar = "FASTENERS_TEST_CLAIM"

func TestMain(m *testing.M) {
	if os.Getenv(claimVar) == "" {
		os.Exit(m.Run())
	}
	Make(volume, file)
	fmt.Println("made")
	bufio.NewReader(os.Stdin).ReadString('\n')
}

const volume, file = 64769, 12345

func mustBe(t *testing.T, want bool, volume, file uint64) {
	t.Helper()
	if Made(volume, file) != want {
		t.Errorf("claim on %d, %d: %v", volume, file, !want)
	}
}

func TestMake(t *testing.T) {
	mustBe(t, false, volume, file)
	drop, dropOther := Make(volume, file), Make(volume, file+1)
	mustBe(t, true, volume, file)
	mustBe(t, true, volume, file+1)
	mustBe(t, false, volume+1, file)
	mustBe(t, false, file, volume)
	drop()
	mustBe(t, false, volume, file)
	mustBe(t, true, volume, file+1)
	dropOther()
	mustBe(t, false, volume, file+1)
	Make(volume, file)() // again, after the last has gone
	mustBe(t, false, volume, file)
}

// Claims of several processes are independent, and go with the process.
func TestProcesses(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var procs []*exec.Cmd
	for range 2 {
		cmd := exec.Command(exe)
		if emulator := os.Getenv("FASTENERS_TEST_EMULATOR"); emulator != "" {
			cmd = exec.Command(emulator, exe)
		}
		cmd.Env = append(os.Environ(), claimVar+"=1")
		if _, err := cmd.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		procs = append(procs, cmd)
	}
	mustBe(t, true, volume, file)
	procs[0].Process.Kill()
	procs[0].Wait()
	mustBe(t, true, volume, file)
	Make(volume, file)()
	mustBe(t, true, volume, file)
	procs[1].Process.Kill()
	procs[1].Wait()
	for Made(volume, file) { // for ever, if it stays
	}
}
