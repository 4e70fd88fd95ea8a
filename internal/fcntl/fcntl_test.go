//go:build unix

package fcntl

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, path string) *Descriptor {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &Descriptor{FD: fd}
}

func (d *Descriptor) mustTry(t *testing.T, typ int16, r Range, want bool) {
	t.Helper()
	ok, err := d.Try(typ, r)
	if ok != want || err != nil {
		t.Errorf("try: %v, %v; want %v", ok, err, want)
	}
}

// A classic descriptor and one of the other form exclude each other even in one process, so
// that all outcomes can be had here.
func TestForms(t *testing.T) {
	if setlkOFD == none {
		t.Skip("there is one form here")
	}
	path := filepath.Join(t.TempDir(), "lock")
	for _, classic := range []bool{false, true} {
		a, b := open(t, path), open(t, path)
		a.Local = true // which changes no outcome
		b.classic = classic
		left, right := Range{0, 10}, Range{10, 0}
		for _, test := range []struct {
			first       int16
			firstRange  Range
			second      int16
			secondRange Range
			want        bool
		}{
			{unix.F_WRLCK, Whole, unix.F_WRLCK, Whole, false},
			{unix.F_WRLCK, Whole, unix.F_RDLCK, Whole, false},
			{unix.F_RDLCK, Whole, unix.F_WRLCK, Whole, false},
			{unix.F_RDLCK, Whole, unix.F_RDLCK, Whole, true},
			{unix.F_WRLCK, Whole, unix.F_WRLCK, left, false},
			{unix.F_WRLCK, left, unix.F_RDLCK, Whole, false},
			{unix.F_WRLCK, left, unix.F_WRLCK, right, true},
		} {
			a.mustTry(t, test.first, test.firstRange, true)
			b.mustTry(t, test.second, test.secondRange, test.want)
			for _, d := range []*Descriptor{a, b} {
				if err := d.Unlock(Whole); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// Of a lock of another descriptor one can tell the form.
func TestTest(t *testing.T) {
	if setlkOFD == none {
		t.Skip("a process does not see its own locks here")
	}
	path := filepath.Join(t.TempDir(), "lock")
	for _, classic := range []bool{false, true} {
		a, b := open(t, path), open(t, path)
		a.classic = classic
		mustTest := func(typ int16, r Range, want int16) {
			t.Helper()
			got, isClassic, err := b.Test(typ, r)
			if got != want || err != nil || want != unix.F_UNLCK && isClassic != classic {
				t.Errorf("type %v, classic %v, %v; want type %v, classic %v", got, isClassic, err, want, classic)
			}
		}
		mustTest(unix.F_WRLCK, Whole, unix.F_UNLCK)
		a.mustTry(t, unix.F_RDLCK, Range{5, 1}, true)
		mustTest(unix.F_WRLCK, Range{0, 10}, unix.F_RDLCK)
		mustTest(unix.F_RDLCK, Whole, unix.F_UNLCK)
		mustTest(unix.F_WRLCK, Range{6, 0}, unix.F_UNLCK)
		if err := a.Unlock(Whole); err != nil {
			t.Error(err)
		}
	}
}

func TestErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := &Descriptor{FD: fd}
	if ok, err := d.Try(unix.F_WRLCK, Whole); ok || err != unix.EBADF {
		t.Errorf("write lock on a file that is open to read: %v, %v", ok, err)
	}
	d.mustTry(t, unix.F_RDLCK, Whole, true)
	unix.Close(fd)
	if ok, err := d.Wait(unix.F_RDLCK, Whole); ok || err != unix.EBADF {
		t.Errorf("lock on a closed file: %v, %v", ok, err)
	}
}

// Where the other form is refused the classic one is used, and without another try of the
// other. A range that no form takes stands in for a file system that refuses.
func TestFallback(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "lock"))
	if ok, err := d.Try(unix.F_WRLCK, Range{-1, 1}); ok || err != unix.EINVAL {
		t.Errorf("try: %v, %v", ok, err)
	}
	if setlkOFD != none && !d.classic {
		t.Error("the classic form was not tried")
	}
	d.mustTry(t, unix.F_WRLCK, Whole, true)
}
