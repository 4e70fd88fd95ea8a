package faultproxy

import (
	"bufio"
	"net"
	"testing"
	"time"

	"github.com/go-fasteners/fasteners/internal/enginetest/must"
)

// A peer is one end of a connection through a proxy.
type peer struct {
	t     *testing.T
	conn  net.Conn
	lines <-chan string // what it reads; closed when the connection has ended
}

func newPeer(t *testing.T, conn net.Conn) *peer {
	t.Cleanup(func() { _ = conn.Close() })
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(conn); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return &peer{t, conn, lines}
}

func (p *peer) send(line string) {
	p.t.Helper()
	_, err := p.conn.Write([]byte(line + "\n"))
	must.Succeed(p.t, err)
}

func (p *peer) wants(line string) {
	p.t.Helper()
	if got, ok := <-p.lines; !ok || got != line {
		p.t.Fatalf("%q %v, want %q", got, ok, line)
	}
}

func (p *peer) wantsEnd() {
	p.t.Helper()
	if got, ok := <-p.lines; ok {
		p.t.Fatalf("%q, want the end", got)
	}
}

// connect returns a proxy, and both ends of a connection that works.
func connect(t *testing.T) (p *Proxy, client, server *peer) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must.Succeed(t, err)
	t.Cleanup(func() { _ = l.Close() })
	p = New(t, l.Addr().String())
	conn, err := net.Dial("tcp", p.Addr())
	must.Succeed(t, err)
	accepted, err := l.Accept()
	must.Succeed(t, err)
	client, server = newPeer(t, conn), newPeer(t, accepted)
	client.send("request")
	server.wants("request")
	server.send("answer")
	client.wants("answer")
	return p, client, server
}

// TestForward holds each direction up, and the other goes on.
func TestForward(t *testing.T) {
	p, client, server := connect(t)
	p.Forward(false, true)
	client.send("held up")
	server.send("a")
	client.wants("a")
	must.Block(t, "a request arrives", server.lines)
	p.Forward(true, false)
	server.wants("held up")
	server.send("held up")
	client.send("b")
	server.wants("b")
	must.Block(t, "an answer arrives", client.lines)
	p.Forward(true, true)
	client.wants("held up")
}

// TestEndIsHeldUp closes either end while nothing is forwarded. The other one gets to know it
// later, after what was sent before.
func TestEndIsHeldUp(t *testing.T) {
	for _, name := range []string{"client", "server"} {
		t.Run(name, func(t *testing.T) {
			p, from, to := connect(t)
			if name == "server" {
				from, to = to, from
			}
			p.Forward(false, false)
			from.send("last")
			must.Succeed(t, from.conn.Close())
			must.Block(t, "the end arrives", to.lines)
			p.Forward(true, true)
			to.wants("last")
			to.wantsEnd()
		})
	}
}

// TestConnectWhileNothingIsForwarded connects to a proxy that accepts all and forwards nothing.
func TestConnectWhileNothingIsForwarded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must.Succeed(t, err)
	defer l.Close()
	p := New(t, l.Addr().String())
	p.Forward(false, true)
	conn, err := net.Dial("tcp", p.Addr())
	must.Succeed(t, err)
	defer conn.Close()
	accepted := must.Go(func() error { _, err := l.Accept(); return err })
	must.Block(t, "the server is reached", accepted)
	p.Forward(true, true)
	must.Succeed(t, <-accepted)
}

// TestDelay checks that no answer comes too early.
func TestDelay(t *testing.T) {
	p, client, server := connect(t)
	const delay = 100 * time.Millisecond
	p.Delay(delay)
	for range 3 {
		sent := time.Now()
		server.send("answer")
		client.wants("answer")
		if took := time.Since(sent); took < delay {
			t.Errorf("an answer is there after %v", took)
		}
	}
	p.Delay(0)
	server.send("answer")
	client.wants("answer")
}

func TestCut(t *testing.T) {
	p, client, server := connect(t)
	p.Cut()
	client.wantsEnd()
	server.wantsEnd()
}

// TestCutClients checks that the server is not told, and can go on, until the proxy is closed.
func TestCutClients(t *testing.T) {
	p, client, server := connect(t)
	p.CutClients()
	client.wantsEnd()
	for range 3 {
		server.send("answer")
	}
	must.Block(t, "the server is told", server.lines)
	p.Close()
	server.wantsEnd()
}

func TestClose(t *testing.T) {
	p, client, server := connect(t)
	p.Forward(false, false)
	client.send("lost")
	p.Close()
	client.wantsEnd()
	server.wantsEnd()
	if conn, err := net.Dial("tcp", p.Addr()); err == nil {
		_ = conn.Close()
		t.Error("a closed proxy accepts a connection")
	}
}
