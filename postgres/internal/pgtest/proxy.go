package pgtest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// A Proxy forwards TCP connections to a server, until it is told to stop: then it accepts all and forwards
// nothing, like a network that drops packets.
type Proxy struct {
	Addr string

	listener net.Listener
	to       string
	mu       sync.Mutex
	changed  *sync.Cond
	dropUp   bool          // to the server
	dropDown bool          // from it
	delay    time.Duration // of what comes from it
	links    map[*link]struct{}
	closed   bool
}

// A link is a connection of a client, and the one to the server that belongs to it.
type link struct {
	client, server net.Conn
	cut            bool // the server is not told when the connection of the client ends
}

// NewProxy returns a proxy for the server at an address. It ends with the test.
func NewProxy(tb testing.TB, to string) *Proxy {
	tb.Helper()
	p, err := StartProxy(to)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return p
}

// StartProxy returns a proxy for the server at an address. The caller has to call Close.
func StartProxy(to string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{Addr: l.Addr().String(), listener: l, to: to, links: map[*link]struct{}{}}
	p.changed = sync.NewCond(&p.mu)
	go p.serve()
	return p, nil
}

// Close ends the proxy and its connections.
func (p *Proxy) Close() {
	p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.changed.Broadcast()
	for l := range p.links {
		l.client.Close()
		l.server.Close()
	}
}

// Drop says in which directions nothing is forwarded from now on. What is held up is forwarded later.
func (p *Proxy) Drop(up, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropUp, p.dropDown = up, down
	p.changed.Broadcast()
}

// Delay delays all that the server sends from now on.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Cut closes the connections of all clients. The server does not get to know that.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.cut = true
		l.client.Close()
	}
}

func (p *Proxy) serve() {
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
	if !p.await(func() bool { return p.dropUp }) {
		return
	}
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	l := &link{client: client, server: server}
	p.mu.Lock()
	p.links[l] = struct{}{}
	p.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { p.copy(l, server, client, func() bool { return p.dropUp }, false) })
	wg.Go(func() { p.copy(l, client, server, func() bool { return p.dropDown }, true) })
	wg.Wait()
	server.Close()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// end closes both connections, but not that to the server if the link was cut.
func (p *Proxy) end(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.client.Close()
	if !l.cut {
		l.server.Close()
	}
}

// await waits until drops, which it calls with mu held, is false. It returns false when the proxy is closed.
func (p *Proxy) await(drops func() bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for drops() && !p.closed {
		p.changed.Wait()
	}
	return !p.closed
}

// copy forwards in one direction. It sends each chunk at its due time: if it slept before it reads the
// next one, delays would add up.
func (p *Proxy) copy(l *link, to, from net.Conn, drops func() bool, delayed bool) {
	type chunk struct {
		data []byte
		due  time.Time
	}
	chunks := make(chan chunk, 1024)
	go func() {
		defer close(chunks)
		for {
			buf := make([]byte, 32<<10)
			n, err := from.Read(buf)
			if n > 0 {
				due := time.Now()
				if delayed {
					p.mu.Lock()
					due = due.Add(p.delay)
					p.mu.Unlock()
				}
				chunks <- chunk{buf[:n], due}
			}
			if err != nil {
				return
			}
		}
	}()
	defer func() {
		p.end(l)
		for range chunks { // the server may go on until it ends the session
		}
	}()
	for c := range chunks {
		time.Sleep(time.Until(c.due))
		if !p.await(drops) {
			return
		}
		if _, err := to.Write(c.data); err != nil {
			return
		}
	}
}
