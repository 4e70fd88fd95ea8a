//go:build unix && !aix && !solaris

package process

import (
	"syscall"
	"testing"

	"github.com/go-fasteners/fasteners/internal/enginetest/must"
)

func TestStop(t *testing.T) {
	p := NewSelf(t, "hang")
	p.Expect(t, "hangs")
	var status syscall.WaitStatus
	must.Succeed(t, p.Stop())
	_, err := syscall.Wait4(p.cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
	must.Succeed(t, err)
	if !status.Stopped() {
		t.Errorf("not stopped: %#x", status)
	}
	must.Succeed(t, p.Continue())
	_, err = syscall.Wait4(p.cmd.Process.Pid, &status, syscall.WCONTINUED, nil)
	must.Succeed(t, err)
	if !status.Continued() {
		t.Errorf("not continued: %#x", status)
	}
}
