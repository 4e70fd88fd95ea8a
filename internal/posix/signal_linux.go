package posix

import (
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// signalsInterrupt reports whether a thread that has SIGURG unblocked can be interrupted by it
// now. It is asked before each wait, since that can change: C code or signal.Ignore may have
// replaced the runtime's handler, and a filter of system calls may refuse tgkill(2) (seccomp(2)).
func signalsInterrupt() bool {
	mainThread := pid
	return hasHandler(unix.SIGURG) && unix.Tgkill(pid, mainThread, 0) == nil
}

var pid = os.Getpid() // it takes a system call

var onlySIGURG unix.Sigset_t

func init() { onlySIGURG.Val[0] = 1 << (unix.SIGURG - 1) }

// unblockSIGURG unblocks SIGURG on the calling thread, and reports whether it was blocked. C code
// may have blocked it; and under GODEBUG=asyncpreemptoff=1 all threads inherit the mask of the
// process that has started this one.
func unblockSIGURG() (was bool, err error) {
	var old unix.Sigset_t
	err = unix.PthreadSigmask(unix.SIG_UNBLOCK, &onlySIGURG, &old)
	return old.Val[0]&onlySIGURG.Val[0] != 0, err
}

func blockSIGURG() { _ = unix.PthreadSigmask(unix.SIG_BLOCK, &onlySIGURG, nil) }

// hasHandler reports whether a signal makes a handler run, now and the next time. It asks the
// kernel, as the runtime does not know what C code has set.
func hasHandler(sig unix.Signal) bool {
	const (
		ignored   = 1          // SIG_IGN; SIG_DFL is 0, and ignores SIGURG, too
		resetHand = 0x80000000 // SA_RESETHAND
	)
	// The kernel's struct sigaction begins with the handler and the flags, or the other way
	// round. Its mask has 64 signals, or 128.
	var action [32]uintptr
	pointer, setSize := unsafe.Pointer(&action), uintptr(8)
	onMIPS := strings.HasPrefix(runtime.GOARCH, "mips")
	if onMIPS {
		setSize = 16
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(pointer), setSize, 0, 0)
	handler, flags := action[0], uint32(action[1])
	if onMIPS {
		handler, flags = action[1], *(*uint32)(pointer)
	}
	return errno == 0 && handler > ignored && flags&resetHand == 0
}
