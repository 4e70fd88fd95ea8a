package stress

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/go-fasteners/fasteners/cmd/fasteners/internal/worker"
)

// The peers are Python programs that use Python's fasteners. They publish their
// holds on the board as others do, but look at nobody's: of two holds that
// overlap, the goroutine of the other one notices that.
//
//go:embed peer.py
var peerProgram string

// findPython returns the command of a Python that has fasteners.
func findPython() ([]string, error) {
	var problems []error
	for _, name := range []string{"python3", "/usr/bin/python3", "python"} {
		path, err := exec.LookPath(name)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		out, err := exec.CommandContext(ctx, path, "-c", "import fasteners").CombinedOutput()
		cancel()
		if err == nil {
			return []string{path, "-c", peerProgram}, nil
		}
		problems = append(problems, fmt.Errorf("%s: %w: %s", path, err, lastLine(out)))
	}
	return nil, fmt.Errorf("there is no python3 that has fasteners (pip install fasteners): %w",
		errors.Join(problems...))
}

func lastLine(text []byte) string {
	end := len(text)
	for end > 0 && text[end-1] == '\n' {
		end--
	}
	start := end
	for start > 0 && text[start-1] != '\n' {
		start--
	}
	return string(text[start:end])
}

func pythonCommand(command []string) (*exec.Cmd, error) {
	if os.Getenv(worker.BreakVar) != "" {
		return nil, errors.New("a peer's locks cannot be broken")
	}
	return exec.Command(command[0], command[1:]...), nil
}
