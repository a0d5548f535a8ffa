//go:build linux

package main

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// proxy carries TCP connections and disturbs them as networks do. It does not read their contents.
// It is safe for concurrent use.
type proxy struct {
	listener net.Listener
	target   func() string
	attempts int // how many targets a connection tries
	accepted atomic.Int64

	mu      sync.Mutex // guards the fields below
	weather weather
	links   map[*link]bool
	closed  bool
}

// weather is what happens to all connections for a while.
type weather struct {
	delay  time.Duration // the longest delay of a chunk
	chop   int           // the largest size of a chunk; 0: no limit
	refuse bool          // new connections are cut off
	stall  chan struct{} // traffic stops until this is closed; nil: it flows
}

// link is one connection with its two sides: one dialled the proxy, the other was dialled by it.
type link struct {
	near, far *net.TCPConn
	target    string
	over      chan struct{}
	once      sync.Once
}

func newProxy(target func() string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, target: target, attempts: 1, links: map[*link]bool{}}
	go p.serve()
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }
func (p *proxy) port() int       { return p.listener.Addr().(*net.TCPAddr).Port }

func (p *proxy) serve() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.accepted.Add(1)
		go p.carry(conn.(*net.TCPConn))
	}
}

func (p *proxy) carry(near *net.TCPConn) {
	if p.now().refuse {
		reset(near)
		return
	}
	var far net.Conn
	var target string
	err := errors.New("no attempt")
	for n := 0; n < p.attempts && err != nil; n++ {
		target = p.target()
		far, err = net.DialTimeout("tcp", target, 5*time.Second)
	}
	if err != nil {
		reset(near)
		return
	}
	l := &link{near: near, far: far.(*net.TCPConn), target: target, over: make(chan struct{})}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		l.cut()
		return
	}
	p.links[l] = true
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.pump(l, l.near, l.far) })
	both.Go(func() { p.pump(l, l.far, l.near) })
	both.Wait()
	near.Close()
	far.Close()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// pump copies one direction. It passes an orderly end on as one, and any other end as a reset.
func (p *proxy) pump(l *link, from, to *net.TCPConn) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		for rest := buffer[:n]; len(rest) > 0; {
			w := p.now()
			if w.stall != nil {
				select {
				case <-w.stall:
					continue // the weather may have changed
				case <-l.over:
					return
				}
			}
			chunk := rest
			if w.chop > 0 && len(chunk) > w.chop {
				chunk = chunk[:1+rand.IntN(w.chop)]
			}
			if w.delay > 0 {
				select {
				case <-time.After(time.Duration(rand.Int64N(int64(w.delay)))):
				case <-l.over:
					return
				}
			}
			if _, err := to.Write(chunk); err != nil {
				l.cut()
				return
			}
			rest = rest[len(chunk):]
		}
		switch {
		case errors.Is(err, io.EOF):
			to.CloseWrite()
			return
		case err != nil:
			l.cut()
			return
		}
	}
}

func (p *proxy) now() weather {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.weather
}

func (p *proxy) change(f func(*weather)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.weather)
}

// calm ends all weather.
func (p *proxy) calm() {
	p.change(func(w *weather) {
		if w.stall != nil {
			close(w.stall)
		}
		*w = weather{}
	})
}

// some returns a random selection: each connection with a probability.
func (p *proxy) some(r *rand.Rand, probability float64) []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*link
	for l := range p.links {
		if r.Float64() < probability {
			list = append(list, l)
		}
	}
	return list
}

// targetOf returns where the connection of a client goes, or the empty string if there is none.
func (p *proxy) targetOf(client net.Addr) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		if l.near.RemoteAddr().String() == client.String() {
			return l.target
		}
	}
	return ""
}

func (p *proxy) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

func (p *proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.calm()
	for _, l := range p.some(rand.New(rand.NewPCG(0, 0)), 2) {
		l.cut()
	}
}

// cut resets both sides.
func (l *link) cut() {
	l.once.Do(func() {
		close(l.over)
		reset(l.near)
		reset(l.far)
	})
}

func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}
