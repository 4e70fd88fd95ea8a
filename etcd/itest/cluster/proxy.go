package cluster

import (
	"net"
	"sync"
	"time"
)

// A Proxy forwards TCP connections. It can fail as a network does that drops packets: then it still
// accepts connections and data, and forwards nothing.
type Proxy struct {
	listener net.Listener
	to       string

	mu       sync.Mutex
	changed  *sync.Cond // when requests, answers or closed change
	requests bool       // are forwarded
	answers  bool       // are forwarded
	delay    time.Duration
	conns    map[net.Conn]bool
	closed   bool
}

// NewProxy returns a proxy that forwards to an address.
func NewProxy(to string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, to: to, requests: true, answers: true, conns: map[net.Conn]bool{}}
	p.changed = sync.NewCond(&p.mu)
	go p.accept()
	return p, nil
}

// Addr returns the address of the proxy.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Forward sets whether requests and answers are forwarded. Those that were not are forwarded later, as if
// they were sent again.
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

// Cut closes all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
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
	if !p.add(client, server) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client, &p.requests) })
	both.Go(func() { p.copy(client, server, &p.answers) })
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, client)
	delete(p.conns, server)
}

func (p *Proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = true
	}
	return !p.closed
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

// copy forwards one direction of a connection. It goes on reading while earlier data are delayed:
// otherwise the delays of answers would add up.
func (p *Proxy) copy(to, from net.Conn, direction *bool) {
	defer to.Close()
	type chunk struct {
		data []byte
		due  time.Time
	}
	chunks := make(chan chunk, 1<<12)
	go func() {
		defer close(chunks)
		for {
			buf := make([]byte, 16<<10)
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			chunks <- chunk{buf[:n], p.due(direction)}
		}
	}()
	ok := true
	for c := range chunks {
		if !ok {
			continue // read until the end
		}
		time.Sleep(time.Until(c.due))
		ok = p.pass(direction)
		if ok {
			_, err := to.Write(c.data)
			ok = err == nil
		}
		if !ok {
			_ = from.Close()
		}
	}
}
