//go:build unix

package posix

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
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	d := New(fd, uint64(st.Dev))
	return &d
}

// force makes d use one of the forms.
func (d *Descriptor) force(processOwned bool) {
	d.form.Store(ofdForm)
	if processOwned {
		d.form.Store(processOwnedForm)
	}
}

func (d *Descriptor) mustTry(t *testing.T, typ int16, r Range, want bool) {
	t.Helper()
	ok, err := d.TryLock(typ, r)
	if ok != want || err != nil {
		t.Errorf("try: %v, %v; want %v", ok, err, want)
	}
}

// Descriptors of the two forms exclude each other even in one process, so one process can test
// all outcomes.
func TestForms(t *testing.T) {
	if setlkOFD == unsupported {
		t.Skip("there is one form here")
	}
	path := filepath.Join(t.TempDir(), "lock")
	for _, processOwned := range []bool{false, true} {
		a, b := open(t, path), open(t, path)
		b.force(processOwned)
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

// Conflict returns the range and the type of another descriptor's lock, and ignores locks of
// its own.
func TestConflict(t *testing.T) {
	if setlkOFD == unsupported {
		t.Skip("a process does not see its own locks here")
	}
	path := filepath.Join(t.TempDir(), "lock")
	for _, processOwned := range []bool{false, true} {
		a, b := open(t, path), open(t, path)
		a.force(processOwned)
		check := func(d *Descriptor, typ int16, r Range, want int16) {
			t.Helper()
			lk, err := d.Conflict(typ, r)
			if lk.Type != want || err != nil || want != unix.F_UNLCK && (lk.Start != 5 || lk.Len != 1) {
				t.Errorf("lock is %+v, %v; want type %v", lk, err, want)
			}
		}
		check(b, unix.F_WRLCK, Whole, unix.F_UNLCK)
		a.mustTry(t, unix.F_RDLCK, Range{5, 1}, true)
		check(b, unix.F_WRLCK, Range{0, 10}, unix.F_RDLCK)
		check(b, unix.F_RDLCK, Whole, unix.F_UNLCK)
		check(b, unix.F_WRLCK, Range{6, 0}, unix.F_UNLCK)
		check(a, unix.F_WRLCK, Whole, unix.F_UNLCK)
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
	if ok, err := d.TryLock(unix.F_WRLCK, Whole); ok || err != unix.EBADF {
		t.Errorf("write lock on a file that is open to read: %v, %v", ok, err)
	}
	d.mustTry(t, unix.F_RDLCK, Whole, true)
	unix.Close(fd)
	if ok, err := d.TryLock(unix.F_RDLCK, Whole); ok || err != unix.EBADF {
		t.Errorf("lock on a closed file: %v, %v", ok, err)
	}
}

// A descriptor falls back to the process-owned form, once and for all, if the file system
// refuses the other one. Here, a range that is invalid in both forms is refused.
func TestFallback(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "lock"))
	if ok, err := d.TryLock(unix.F_WRLCK, Range{-1, 1}); ok || err != unix.EINVAL {
		t.Errorf("try: %v, %v", ok, err)
	}
	if setlkOFD != unsupported && d.form.Load() != processOwnedForm {
		t.Error("the process-owned form was not tried")
	}
	d.mustTry(t, unix.F_WRLCK, Whole, true)
}

// failing makes calls fail until the test ends.
func failing(t *testing.T, f func(cmd int, typ int16) error) {
	Fault = f
	t.Cleanup(func() { Fault = nil })
}

func isTry(cmd int) bool { return cmd == setlkOFD || cmd == unix.F_SETLK }

// EACCES means that the lock is held only if there is a holder. Otherwise it is a refusal, as
// by AppArmor, and TryLock returns it.
func TestRefusal(t *testing.T) {
	if setlkOFD == unsupported {
		t.Skip("a process does not see its own locks here")
	}
	path := filepath.Join(t.TempDir(), "lock")
	a, b := open(t, path), open(t, path)
	failing(t, func(cmd int, typ int16) error {
		if isTry(cmd) && typ != unix.F_UNLCK {
			return unix.EACCES
		}
		return nil
	})
	if ok, err := a.TryLock(unix.F_WRLCK, Whole); ok || err != unix.EACCES {
		t.Errorf("nobody holds the lock: %v, %v", ok, err)
	}
	Fault = nil
	b.mustTry(t, unix.F_RDLCK, Whole, true)
	failing(t, func(cmd int, typ int16) error {
		if isTry(cmd) && typ != unix.F_UNLCK {
			return unix.EACCES
		}
		return nil
	})
	a.mustTry(t, unix.F_WRLCK, Whole, false)
	if ok, err := a.TryLock(unix.F_RDLCK, Whole); ok || err != unix.EACCES {
		t.Errorf("nobody holds a lock that conflicts: %v, %v", ok, err)
	}
}

// TryLock does not take EACCES for a refusal if the holder has released the lock before
// Conflict asked.
func TestReleaseDuringRefusal(t *testing.T) {
	if setlkOFD == unsupported {
		t.Skip("a process does not see its own locks here")
	}
	path := filepath.Join(t.TempDir(), "lock")
	a := open(t, path)
	calls := 0
	failing(t, func(cmd int, typ int16) error {
		if isTry(cmd) && typ == unix.F_WRLCK {
			if calls++; calls <= 3 {
				return unix.EACCES
			}
		}
		return nil
	})
	a.mustTry(t, unix.F_WRLCK, Whole, true)
}

// A call that is interrupted by a signal, whose handler was installed without SA_RESTART, is
// made again.
func TestInterruptedCall(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "lock"))
	calls := 0
	failing(t, func(int, int16) error {
		if calls++; calls%3 != 0 {
			return unix.EINTR
		}
		return nil
	})
	d.mustTry(t, unix.F_WRLCK, Whole, true)
}

// ERESTARTSYS, which a FUSE server that answers EINTR makes fcntl return, is an interruption. But
// where each call is interrupted in this way, that is an error.
func TestRestarts(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "lock"))
	calls := 0
	failing(t, func(int, int16) error {
		if calls++; calls%3 != 0 {
			return erestartsys
		}
		return nil
	})
	d.mustTry(t, unix.F_WRLCK, Whole, true)
	failing(t, func(int, int16) error { return erestartsys })
	if err := d.Unlock(Whole); err != errKeepsRestarting {
		t.Errorf("unlock: %v", err)
	}
}

// EINVAL for the unlocking of a lock does not make a descriptor forget the form of the lock: it
// could not be unlocked in the other form. Nor does one that has to keep the form use another.
func TestNoFallback(t *testing.T) {
	if setlkOFD == unsupported {
		t.Skip("there is one form here")
	}
	path := filepath.Join(t.TempDir(), "lock")
	a, b, other := open(t, path), open(t, path), open(t, path)
	a.mustTry(t, unix.F_WRLCK, Whole, true)
	refuseOFD := func(cmd int, typ int16) error {
		if cmd == setlkOFD {
			return unix.EINVAL
		}
		return nil
	}
	failing(t, refuseOFD)
	if err := a.Unlock(Whole); err != unix.EINVAL {
		t.Errorf("unlock: %v", err)
	}
	Fault = nil
	other.mustTry(t, unix.F_RDLCK, Whole, false)
	if err := a.Unlock(Whole); err != nil {
		t.Error(err)
	}
	other.mustTry(t, unix.F_RDLCK, Whole, true)

	b.KeepForm()
	failing(t, refuseOFD)
	if ok, err := b.TryLock(unix.F_RDLCK, Whole); ok || err != unix.EINVAL {
		t.Errorf("try: %v, %v", ok, err)
	}
}
