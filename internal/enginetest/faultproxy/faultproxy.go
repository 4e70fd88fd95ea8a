// Package faultproxy has a TCP proxy that fails as networks do.
package faultproxy

import (
	"net"
	"sync"
	"testing"
	"time"
)

// A Proxy forwards TCP connections of clients to a server. It can fail as a network does that drops
// packets: then it still accepts connections and data, and forwards nothing, nor that a connection
// has ended.
type Proxy struct {
	listener net.Listener
	to       string

	mu       sync.Mutex
	changed  *sync.Cond // when requests, answers or closed change
	requests bool       // are forwarded
	answers  bool       // are forwarded
	delay    time.Duration
	links    map[*link]struct{}
	closed   bool
}

// A link is a connection of a client, and the one to the server that belongs to it.
type link struct {
	client, server net.Conn
	silent         bool // the server is not told when the connection of the client ends
}

// Start returns a proxy that forwards to an address, until Close is called.
func Start(to string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, to: to, requests: true, answers: true, links: map[*link]struct{}{}}
	p.changed = sync.NewCond(&p.mu)
	go p.accept()
	return p, nil
}

// New returns a proxy that forwards to an address, until the test ends.
func New(tb testing.TB, to string) *Proxy {
	tb.Helper()
	p, err := Start(to)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return p
}

// Addr returns the address of the proxy.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Forward sets whether requests and answers are forwarded. Those that were not are forwarded later,
// as if they were sent again.
func (p *Proxy) Forward(requests, answers bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests, p.answers = requests, answers
	p.changed.Broadcast()
}

// Delay sets for how long answers are on their way.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Cut closes all connections, of clients and to the server.
func (p *Proxy) Cut() { p.cut(false) }

// CutClients closes the connections of clients. The server is not told.
func (p *Proxy) CutClients() { p.cut(true) }

func (p *Proxy) cut(silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.silent = l.silent || silent
		_ = l.client.Close()
		if !silent {
			_ = l.server.Close()
		}
	}
}

// Close closes the proxy and its connections.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.changed.Broadcast()
	p.mu.Unlock()
	p.Cut()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.forward(client)
	}
}

func (p *Proxy) forward(client net.Conn) {
	defer client.Close()
	if !p.pass(&p.requests) {
		return
	}
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer server.Close()
	l := &link{client: client, server: server}
	if !p.add(l) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.copy(l, server, client, &p.requests) })
	both.Go(func() { p.copy(l, client, server, &p.answers) })
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// add reports whether the proxy is not closed.
func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links[l] = struct{}{}
	return !p.closed
}

// end closes both connections, but not that to the server if it is not to be told.
func (p *Proxy) end(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = l.client.Close()
	if !l.silent {
		_ = l.server.Close()
	}
}

// pass waits until that direction is forwarded, and reports whether the proxy is not closed.
func (p *Proxy) pass(direction *bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !*direction && !p.closed {
		p.changed.Wait()
	}
	return !p.closed
}

// due returns when what was read now is to be forwarded.
func (p *Proxy) due(direction *bool) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if direction == &p.answers {
		return time.Now().Add(p.delay)
	}
	return time.Now()
}

// A chunk is what was read at once, or nothing at the end of a connection.
type chunk struct {
	data []byte
	due  time.Time
}

// copy forwards one direction of a link. It goes on reading while earlier data are delayed:
// otherwise the delays of answers would add up.
func (p *Proxy) copy(l *link, to, from net.Conn, direction *bool) {
	chunks := make(chan chunk, 1<<12)
	go func() {
		defer close(chunks)
		for err := error(nil); err == nil; {
			buf, n := make([]byte, 16<<10), 0
			n, err = from.Read(buf)
			chunks <- chunk{buf[:n], p.due(direction)}
		}
	}()
	defer func() {
		p.end(l)
		for range chunks { // the server may go on until it ends the connection
		}
	}()
	for c := range chunks {
		time.Sleep(time.Until(c.due))
		if !p.pass(direction) {
			return
		}
		if _, err := to.Write(c.data); err != nil {
			return
		}
	}
}
