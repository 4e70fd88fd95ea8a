// Package sigtest lets a test do to SIGURG what C code of a program can do. It is a module of its
// own since it needs a C compiler.
package sigtest

/*
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

static void handle(int sig) {}

// setHandler installs a handler that does nothing. Go requires SA_ONSTACK of all handlers.
static int setHandler(int flags) {
	struct sigaction a;
	memset(&a, 0, sizeof a);
	a.sa_handler = handle;
	a.sa_flags = flags | SA_ONSTACK;
	return sigaction(SIGURG, &a, NULL) ? errno : 0;
}

static int setDisposition(int ignore) {
	return signal(SIGURG, ignore ? SIG_IGN : SIG_DFL) == SIG_ERR ? errno : 0;
}

void sigtestCall(void);

static void *call(void *unused) {
	sigtestCall();
	return NULL;
}

// callOnThread calls the Go function on a new thread, which may have all signals blocked.
static int callOnThread(int block) {
	sigset_t all, old;
	sigfillset(&all);
	if (block) {
		pthread_sigmask(SIG_BLOCK, &all, &old);
	}
	pthread_t thread;
	int err = pthread_create(&thread, NULL, call, NULL);
	if (block) {
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	return err ? err : pthread_join(thread, NULL);
}
*/
import "C"

import "syscall"

// Dispositions are what C code can make SIGURG do, and whether that interrupts a system call for
// good.
var Dispositions = map[string]struct {
	Set        func() error
	Interrupts bool
}{
	"with SA_RESTART":    {func() error { return errno(C.setHandler(C.SA_RESTART)) }, true},
	"without SA_RESTART": {func() error { return errno(C.setHandler(0)) }, true},
	"with SA_RESETHAND":  {func() error { return errno(C.setHandler(C.int(-1 << 31))) }, false},
	"SIG_IGN":            {func() error { return errno(C.setDisposition(1)) }, false},
	"SIG_DFL":            {func() error { return errno(C.setDisposition(0)) }, false},
	"of the runtime":     {func() error { return nil }, true},
}

func errno(n C.int) error {
	if n == 0 {
		return nil
	}
	return syscall.Errno(n)
}

// CallOnThread calls f on a thread that C code has made, with all signals blocked or none.
func CallOnThread(blocked bool, f func()) error {
	called = f
	block := C.int(0)
	if blocked {
		block = 1
	}
	return errno(C.callOnThread(block))
}

var called func()

//export sigtestCall
func sigtestCall() { called() }
