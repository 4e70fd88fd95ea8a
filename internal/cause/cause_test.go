package cause

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"
)

var errCause = errors.New("cause")

func TestErrorOfContext(t *testing.T) {
	t.Parallel()
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	withCause, cancelCause := context.WithCancelCause(context.Background())
	cancelCause(errCause)
	over, cancel := context.WithTimeout(context.Background(), -time.Second)
	defer cancel()
	overWithCause, cancel := context.WithTimeoutCause(context.Background(), -time.Second, errCause)
	defer cancel()
	for _, c := range []struct {
		ctx     context.Context
		text    string
		wraps   []error
		timeout bool
	}{
		{canceled, "context canceled", []error{context.Canceled}, false},
		{withCause, "context canceled: cause", []error{context.Canceled, errCause}, false},
		{over, "context deadline exceeded", []error{context.DeadlineExceeded}, true},
		{overWithCause, "context deadline exceeded: cause", []error{context.DeadlineExceeded, errCause}, true},
	} {
		err := Of(c.ctx)
		if err == nil || err.Error() != c.text {
			t.Errorf("error is %q, want %q", err, c.text)
		}
		for _, target := range c.wraps {
			if !errors.Is(err, target) {
				t.Errorf("%q does not wrap %q", err, target)
			}
		}
		if wrapped := (&fs.PathError{Op: "acquire", Path: "x", Err: err}); os.IsTimeout(wrapped) != c.timeout {
			t.Errorf("os.IsTimeout(%q) is %t", wrapped, !c.timeout)
		}
	}
	if err := Of(context.Background()); err != nil {
		t.Errorf("the error of a context that is not done is %q", err)
	}
}

func TestWith(t *testing.T) {
	t.Parallel()
	if err := With(context.Canceled, nil); err != context.Canceled {
		t.Errorf("without a cause the error is %v", err)
	}
	err := With(context.DeadlineExceeded, errCause)
	if again := With(err, errCause); again != err {
		t.Errorf("a cause that is wrapped already is added: %v", again)
	}
}
