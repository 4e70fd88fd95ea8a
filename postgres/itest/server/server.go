// Package server runs PostgreSQL servers for tests and examples.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners/internal/enginetest/must"
	"github.com/jackc/pgx/v5"
)

// A Server is a PostgreSQL server in a directory of its own.
type Server struct {
	dir, bin string
	addr     string // host and port
	port     uint16
	cmd      *exec.Cmd
	stdin    io.Closer
	done     chan struct{} // closed when the process is over
}

// ErrNotInstalled is wrapped by the error of what needs a program that is not there.
var ErrNotInstalled = errors.New("not installed")

// Demand ends the test if err is not nil. If it wraps ErrNotInstalled, the test is skipped, unless
// FASTENERS_TEST_STRICT is set.
func Demand(tb testing.TB, err error) {
	tb.Helper()
	if errors.Is(err, ErrNotInstalled) && os.Getenv("FASTENERS_TEST_STRICT") == "" {
		tb.Skip(err)
	}
	must.Succeed(tb, err)
}

// New returns a new server. It is stopped at the end of the test.
func New(tb testing.TB) *Server {
	tb.Helper()
	s, err := Start()
	Demand(tb, err)
	tb.Cleanup(s.Close)
	return s
}

// Start starts a new server, with an empty database. The caller has to call Close.
func Start() (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "fasteners-postgres")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: bin}
	if err := s.init(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// programs returns the directory of the server's programs: FASTENERS_TEST_POSTGRES, that of
// initdb in PATH, or the newest one of Debian.
func programs() (string, error) {
	if dir := os.Getenv("FASTENERS_TEST_POSTGRES"); dir != "" {
		return dir, nil
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	newest, version := "", 0
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	for _, d := range dirs {
		if v, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(d)))); v > version {
			newest, version = filepath.Dir(d), v
		}
	}
	if newest == "" {
		return "", fmt.Errorf("PostgreSQL: %w (Debian: postgresql)", ErrNotInstalled)
	}
	return newest, nil
}

func (s *Server) init() error {
	if err := Chown(s.dir); err != nil {
		return err
	}
	initdb := Command(filepath.Join(s.bin, "initdb"), "-D", s.dir+"/data", "-U", "postgres",
		"-A", "trust", "-N", "-E", "UTF8", "--locale=C")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	var err error
	for range 5 { // somebody else may take the port first
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return err
		}
		s.port = uint16(l.Addr().(*net.TCPAddr).Port)
		s.addr = l.Addr().String()
		l.Close()
		if err = s.start(); err == nil {
			return nil
		}
	}
	return err
}

// Command returns a command that runs as the user postgres if this process is root: the server
// refuses to run as root.
func Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	if uid, gid, ok := postgresUser(); ok {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	}
	return cmd
}

// Chown gives a file to the user of Command.
func Chown(path string) error {
	if uid, gid, ok := postgresUser(); ok {
		return os.Chown(path, int(uid), int(gid))
	}
	return nil
}

func postgresUser() (uid, gid uint32, ok bool) {
	if os.Geteuid() != 0 {
		return 0, 0, false
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return 0, 0, false
	}
	id, _ := strconv.Atoi(u.Uid)
	group, _ := strconv.Atoi(u.Gid)
	return uint32(id), uint32(group), true
}

// start starts the server, and waits until it accepts connections. A shell stops the server when
// this process exits, for whatever reason: it notices the end of its input.
func (s *Server) start() error {
	const script = `"$@" & read line; kill -QUIT $!; wait $!`
	s.cmd = Command("/bin/sh", "-c", script, "sh", filepath.Join(s.bin, "postgres"), "-D", s.dir+"/data",
		"-p", strconv.Itoa(int(s.port)), "-k", s.dir, "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200",
		"-c", "shared_buffers=16MB", "-c", "log_destination=stderr", "-c", "logging_collector=off")
	log, err := os.OpenFile(s.dir+"/log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	s.done = done
	go func() { defer close(done); _ = s.cmd.Wait() }()
	return s.awaitReady()
}

func (s *Server) awaitReady() error {
	var err error
	for range 1200 {
		var conn *pgx.Conn
		if conn, err = pgx.ConnectConfig(context.Background(), s.Config("")); err == nil {
			return conn.Close(context.Background())
		}
		select {
		case <-s.done:
			log, _ := os.ReadFile(s.dir + "/log")
			return fmt.Errorf("the server has exited: %s", log)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return err
}

// Addr returns the address for clients.
func (s *Server) Addr() string { return s.addr }

// Restart makes the server end without a word, and starts it again.
func (s *Server) Restart() error {
	s.Stop()
	return s.start()
}

// Stop makes the server end without a word.
func (s *Server) Stop() {
	if s.stdin != nil {
		s.stdin.Close()
		<-s.done // the shell has waited for the server, and that for its processes
	}
}

// Data returns the directory of the database.
func (s *Server) Data() string { return s.dir + "/data" }

// Close stops the server and removes its directory.
func (s *Server) Close() {
	s.Stop()
	_ = os.RemoveAll(s.dir)
}

// Config returns a configuration for the server, or for what forwards to it at addr.
func (s *Server) Config(addr string) *pgx.ConnConfig {
	if addr == "" {
		addr = s.addr
	}
	c, err := pgx.ParseConfig("postgres://postgres@" + addr + "/postgres?sslmode=disable")
	if err != nil {
		panic(err)
	}
	return c
}

// Connect returns a connection that is closed at the end of the test.
func (s *Server) Connect(tb testing.TB) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.ConnectConfig(context.Background(), s.Config(""))
	must.Succeed(tb, err)
	tb.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// Log returns what the server has logged.
func (s *Server) Log() string {
	log, _ := os.ReadFile(s.dir + "/log")
	return strings.TrimSpace(string(log))
}
