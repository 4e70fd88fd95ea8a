package tests

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Dispositions of SIGURG, by which the package interrupts a wait in the kernel, and whether they
// do interrupt it. C handlers are in internal/sigtest.
var dispositions = map[string]struct {
	set        func() error
	interrupts bool
}{
	"of the runtime":         {func() error { return nil }, true},
	"default":                {func() error { return setSigaction(func(a *sigaction) { *a = sigaction{} }) }, false},
	"ignored":                {func() error { return setSigaction(func(a *sigaction) { *a = sigaction{handler: 1} }) }, false},
	"ignored by the runtime": {func() error { signal.Ignore(unix.SIGURG); return nil }, false},
	"notified": {func() error {
		signal.Notify(make(chan os.Signal, 1), unix.SIGURG)
		return nil
	}, true},
	"without SA_RESTART": {func() error {
		return setSigaction(func(a *sigaction) { a.flags &^= 0x10000000 })
	}, true},
	"with SA_RESETHAND": {func() error {
		return setSigaction(func(a *sigaction) { a.flags |= 0x80000000 })
	}, false},
}

// A sigaction is that of the kernel on most processors. On MIPS the flags come first.
type sigaction struct {
	handler, flags uintptr
	rest           [30]uintptr
}

// setSigaction changes what SIGURG does, without the runtime, as C code could.
func setSigaction(change func(*sigaction)) error {
	var a sigaction
	for _, args := range [][2]*sigaction{{nil, &a}, {&a, nil}} {
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGURG),
			uintptr(unsafe.Pointer(args[0])), uintptr(unsafe.Pointer(args[1])), 8, 0, 0)
		if errno != 0 {
			return errno
		}
		change(&a)
	}
	return nil
}

// refuseTgkill makes tgkill(2) fail on all threads, by a filter (seccomp(2)).
func refuseTgkill() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_TGKILL},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

// blockSignals blocks all signals on the calling thread, and locks the goroutine to it.
func blockSignals() error {
	runtime.LockOSThread()
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i]--
	}
	return unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil)
}

// masks are the ways in which a thread can come to have SIGURG blocked.
var masks = []string{"not blocked", "blocked by the thread", "blocked by the parent"}

// signalHelper acquires a lock after it has changed what SIGURG does, as its arguments say: its
// disposition, its mask, and whether tgkill is allowed. It cancels a wait, and then waits without
// end.
var signalHelper = newHelper("signal", func(in *bufio.Reader, args []string) error {
	path, disposition, mask, tgkill := args[0], args[1], args[2], args[3]
	if mask == masks[2] && os.Getenv("GODEBUG") == "" {
		// Without this setting the runtime unblocks SIGURG on its threads.
		if err := blockSignals(); err != nil {
			return err
		}
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		env := append(os.Environ(), helperVar+"=signal", "GODEBUG=asyncpreemptoff=1")
		return syscall.Exec(exe, append([]string{exe}, args...), env)
	}
	go exitAtEOF(in)
	if err := dispositions[disposition].set(); err != nil {
		return err
	}
	if tgkill == "refused" {
		if err := refuseTgkill(); err != nil {
			return err
		}
	}
	if mask == masks[1] {
		if err := blockSignals(); err != nil {
			return err
		}
	}
	isBlocked := func() bool {
		var now unix.Sigset_t
		err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &now)
		return err == nil && now.Val[0]&(1<<(unix.SIGURG-1)) != 0
	}
	before := isBlocked()
	ctx, cancel := context.WithTimeout(background, 10*time.Millisecond)
	defer cancel()
	if err := exclusive(path).acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("error is %v", err)
	}
	fmt.Println("canceled")
	if err := exclusive(path).acquire(background); err != nil {
		return err
	}
	if mask != masks[0] && (!before || !isBlocked()) {
		return fmt.Errorf("SIGURG is blocked: %t, and afterwards %t", before, isBlocked())
	}
	fmt.Println("held")
	return nil
})

// A wait ends with its context, whatever SIGURG does, in the kernel where it can be interrupted,
// and by polling elsewhere.
func TestSIGURG(t *testing.T) {
	if strings.HasPrefix(runtime.GOARCH, "mips") || os.Getenv(emulatorVar) != "" {
		t.Skip("it has another struct sigaction, or is not a kernel")
	}
	for disposition, d := range dispositions {
		for _, mask := range masks {
			for _, tgkill := range []string{"allowed", "refused"} {
				for _, form := range []string{"", "process-owned"} {
					t.Run(strings.Join([]string{disposition, mask, tgkill, form}, "/"), func(t *testing.T) {
						t.Parallel() // most of the time is waiting
						path := lockPath(t)
						holder := startHolder(t, path, "write")
						cmd := helperCommand(signalHelper, path, disposition, mask, tgkill)
						cmd.Env = append(cmd.Env, processOwnedVar+"="+form)
						p := start(t, cmd)
						p.expect("canceled")
						if d.interrupts && tgkill == "allowed" && form == "" {
							waitForWaiter(t, path)
						}
						holder.release()
						p.expect("held")
					})
				}
			}
		}
	}
}
