package must

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
)

// A recorder is a test that ends without that the present one does.
type recorder struct {
	testing.TB
	message string
}

func (r *recorder) Helper()           {}
func (r *recorder) Fatal(args ...any) { r.end(fmt.Sprint(args...)) }

func (r *recorder) Fatalf(format string, args ...any) { r.end(fmt.Sprintf(format, args...)) }

func (r *recorder) end(message string) {
	r.message = message
	runtime.Goexit()
}

func TestDemands(t *testing.T) {
	full := make(chan int, 1)
	full <- 1
	wrapped := fmt.Errorf("read: %w", io.EOF)
	for name, test := range map[string]struct {
		demand func(tb testing.TB)
		want   string // the message, if the test ends
	}{
		"success":       {func(tb testing.TB) { Succeed(tb, nil) }, ""},
		"no success":    {func(tb testing.TB) { Succeed(tb, wrapped) }, "read: EOF"},
		"failure":       {func(tb testing.TB) { Fail(tb, wrapped, io.EOF) }, ""},
		"no failure":    {func(tb testing.TB) { Fail(tb, nil, io.EOF) }, "<nil>, want EOF"},
		"other failure": {func(tb testing.TB) { Fail(tb, io.ErrNoProgress, io.EOF) }, io.ErrNoProgress.Error() + ", want EOF"},
		"block":         {func(tb testing.TB) { Block(tb, "two", make(chan int)) }, ""},
		"no block":      {func(tb testing.TB) { Block(tb, "two", full) }, "two"},
	} {
		r := new(recorder)
		done := make(chan struct{})
		go func() {
			defer close(done)
			test.demand(r)
		}()
		<-done
		if r.message != test.want {
			t.Errorf("%s: %q, want %q", name, r.message, test.want)
		}
	}
}

func TestGo(t *testing.T) {
	want := errors.New("result")
	begin := make(chan struct{})
	c := Go(func() error {
		<-begin
		return want
	})
	Block(t, "returned before it began", c)
	close(begin)
	Fail(t, <-c, want)
}
