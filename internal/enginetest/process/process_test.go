package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/go-fasteners/fasteners/internal/enginetest/must"
)

func TestMain(m *testing.M) {
	Main(map[string]func([]string) error{"echo": echo, "fail": fail, "hang": hang, "leave": leave})
	os.Exit(m.Run())
}

func echo(args []string) error {
	for _, a := range args {
		fmt.Println(a)
	}
	return nil
}

func fail([]string) error { return errors.New("on purpose") }

func hang([]string) error {
	fmt.Println("hangs")
	select {}
}

// leave leaves a process that has the same standard output.
func leave([]string) error {
	cmd, err := Self("hang")
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stdout
	p, err := Start(cmd)
	if err != nil {
		return err
	}
	line, _ := p.Line()
	fmt.Println("child " + line)
	return nil
}

func TestLines(t *testing.T) {
	p := NewSelf(t, "echo", "first line", "second")
	p.Expect(t, "first line")
	p.Expect(t, "second")
	if line, ok := p.Line(); ok {
		t.Errorf("one more line: %q", line)
	}
	must.Succeed(t, p.Wait())
}

func TestFailures(t *testing.T) {
	for function, want := range map[string]int{"fail": 1, "no such function": 2} {
		cmd, err := Self(function)
		must.Succeed(t, err)
		cmd.Stderr = t.Output()
		var exit *exec.ExitError
		if err := New(t, cmd).Wait(); !errors.As(err, &exit) || exit.ExitCode() != want {
			t.Errorf("%s: %v, want exit status %d", function, err, want)
		}
	}
}

func TestKill(t *testing.T) {
	p := NewSelf(t, "hang")
	p.Expect(t, "hangs")
	p.Kill()
	p.Kill() // as at the end of the test
	if p.Wait() == nil {
		t.Error("the process was not killed")
	}
}

// TestParentExits checks that a process exits with its parent: then nobody has the output any more.
func TestParentExits(t *testing.T) {
	p := NewSelf(t, "leave")
	p.Expect(t, "child hangs")
	if line, ok := p.Line(); ok {
		t.Errorf("one more line: %q", line)
	}
	must.Succeed(t, p.Wait())
}
