//go:build unix

package posix

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Duplicate and OpenAbove return no number of a standard stream, in either form.
func TestFirstFD(t *testing.T) {
	path := t.TempDir() + "/lock"
	saved, err := unix.Dup(0)
	if err != nil {
		t.Skip(err) // there is no standard input
	}
	defer unix.Dup2(saved, 0)
	for _, processOwned := range []bool{setlkOFD == unsupported, true} {
		was := ForceProcessOwned.Swap(processOwned)
		unix.Close(0)
		fd, err := OpenAbove(func() (int, error) {
			return unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o666)
		})
		if err != nil || fd < FirstFD {
			t.Errorf("process-owned: %t: descriptor %d, %v", processOwned, fd, err)
		}
		// Where a descriptor that was opened in vain would have had to be closed, another file
		// is open.
		if st, err := Fstat(0); processOwned != (err == nil) || err == nil && st.Mode&unix.S_IFMT != unix.S_IFCHR {
			t.Errorf("process-owned: %t: standard input is of mode %o, %v", processOwned, st.Mode, err)
		}
		unix.Close(0)
		own, err := Duplicate(uintptr(fd))
		if err != nil || own < FirstFD {
			t.Errorf("process-owned: %t: duplicate is descriptor %d, %v", processOwned, own, err)
		}
		if flags, err := unix.FcntlInt(uintptr(own), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("duplicate has the flags %d, %v", flags, err)
		}
		unix.Close(own)
		unix.Close(fd)
		ForceProcessOwned.Store(was)
	}
}

// If a low number becomes free just before the file is opened, the descriptor of that number stays,
// lest a lock be dropped that belongs to the process.
func TestLowFDOfLockedFile(t *testing.T) {
	defer ForceProcessOwned.Store(ForceProcessOwned.Swap(true))
	path := t.TempDir() + "/lock"
	saved, err := unix.Dup(0)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Dup2(saved, 0)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	d := New(int(f.Fd()), 0)
	if ok, err := d.TryLock(unix.F_WRLCK, Whole); !ok || err != nil {
		t.Fatal(ok, err)
	}
	fd, err := OpenAbove(func() (int, error) {
		unix.Close(0)
		return unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	})
	if err != nil || fd < FirstFD {
		t.Fatalf("descriptor %d, %v", fd, err)
	}
	if setlkOFD != unsupported { // a description is another owner: it sees the lock of the process
		lk := newFlock(unix.F_WRLCK, Whole)
		if err := unix.FcntlFlock(uintptr(fd), getlkOFD, &lk); err != nil || lk.Type != unix.F_WRLCK {
			t.Errorf("the lock is not held any more: %v", err)
		}
	}
	unix.Close(fd)
	f.Close()
}

// Signals interrupt a call any number of times, and what only looks like that, some times.
func TestRetry(t *testing.T) {
	const ERESTARTSYS = unix.Errno(512)
	for _, test := range []struct {
		err   error
		times int
		want  error
	}{
		{nil, 0, nil},
		{unix.EIO, 1, unix.EIO},
		{unix.EINTR, 1, nil},
		{unix.EINTR, 100000, nil},
		{ERESTARTSYS, MaxRestarts, nil},
		{ERESTARTSYS, MaxRestarts + 1, unix.EINTR},
		{unix.Errno(513), 1, unix.Errno(513)},
	} {
		n := test.times
		err := Retry(func() error {
			if n--; n >= 0 {
				return test.err
			}
			return nil
		})
		if err != test.want {
			t.Errorf("%v, %d times: %v, want %v", test.err, test.times, err, test.want)
		}
	}
}
