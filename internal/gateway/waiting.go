package gateway

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A connection that is not logged on yet may be turned out for a newcomer when
// it has kept the gateway waiting this long: since it connected when it has sent
// nothing at all; else since its last byte, or for all its bytes together, which a
// logon has in four or five pieces.
const (
	patienceSilent  = 250 * time.Millisecond
	patienceTalking = time.Second
	patienceInAll   = 2 * time.Second
)

// visitor is a connection that is not logged on yet.
type visitor struct {
	conn    net.Conn
	address netip.Addr // as addressOf makes it
	arrived time.Time
	heard   hearing
	served  atomic.Bool // the gateway is at work, and the client waits
}

// hearing is what is known of the bytes that a connection has sent, and of how
// long the gateway has waited for them. Times are UnixNano.
type hearing struct {
	last   atomic.Int64 // of the last byte; 0: none yet
	since  atomic.Int64 // when the read that now waits began; 0: none does
	waited atomic.Int64 // nanoseconds, of reads that are over
}

func (h *hearing) listen() { h.since.Store(time.Now().UnixNano()) }

func (h *hearing) heard(something bool) {
	now := time.Now().UnixNano()
	h.waited.Add(now - h.since.Swap(0))
	if something {
		h.last.Store(now)
	}
}

// kept is how long the visitor has kept the gateway waiting in all. While he is
// served it is he who waits.
func (v *visitor) kept(now time.Time) time.Duration {
	if v.served.Load() {
		return 0
	}
	kept := v.heard.waited.Load()
	if since := v.heard.since.Load(); since != 0 {
		kept += now.UnixNano() - since
	}
	return time.Duration(kept)
}

// idle is how long the visitor has kept the gateway waiting, beyond patience.
// Negative: not yet.
func (v *visitor) idle(now time.Time) time.Duration {
	if v.served.Load() {
		return -time.Hour
	}
	if last := v.heard.last.Load(); last != 0 {
		return max(now.Sub(time.Unix(0, last))-patienceTalking, v.kept(now)-patienceInAll)
	}
	return now.Sub(v.arrived) - patienceSilent
}

// waitingRoom holds the connections that are not logged on yet. Who fills it with
// silence makes room for those who speak: the one that has kept the gateway
// waiting longest is turned out. Who fills it in any way from one address makes
// room for other addresses. Safe for concurrent use.
type waitingRoom struct {
	limit, perAddress int

	mu        sync.Mutex // guards what follows
	visitors  map[*visitor]struct{}
	addresses map[netip.Addr]int
	closed    bool
}

func newWaitingRoom(limit, perAddress int) *waitingRoom {
	return &waitingRoom{limit: limit, perAddress: perAddress,
		visitors: map[*visitor]struct{}{}, addresses: map[netip.Addr]int{}}
}

// enter takes v in. When it does not, wait says when to ask again; negative means
// that the visitor's own address holds all it may.
func (w *waitingRoom) enter(v *visitor) (wait time.Duration, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return -1, false
	}
	if w.addresses[v.address] >= w.perAddress {
		if w.evictLocked(func(o *visitor) bool { return o.address == v.address }) > 0 {
			return -1, false
		}
	}
	if len(w.visitors) >= w.limit {
		if wait := w.evictLocked(func(*visitor) bool { return true }); wait > 0 && !w.crowdLocked(v.address) {
			return wait, false
		}
	}
	w.visitors[v] = struct{}{}
	w.addresses[v.address]++
	return 0, true
}

// leave takes v out. It may have been turned out before.
func (w *waitingRoom) leave(v *visitor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removeLocked(v)
}

// evict turns out the visitor that has kept the gateway waiting longest.
func (w *waitingRoom) evict() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.evictLocked(func(*visitor) bool { return true })
}

// close turns everybody out who is not being served, and keeps newcomers out.
func (w *waitingRoom) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for v := range w.visitors {
		if !v.served.Load() {
			w.removeLocked(v)
			v.conn.Close()
		}
	}
}

func (w *waitingRoom) removeLocked(v *visitor) {
	if _, ok := w.visitors[v]; !ok {
		return
	}
	delete(w.visitors, v)
	if w.addresses[v.address]--; w.addresses[v.address] == 0 {
		delete(w.addresses, v.address)
	}
}

// evictLocked turns one visitor out, and returns 0, or returns how long it takes
// at least until one's time is up. It looks at all of them, which is bounded and
// happens only when the room is full.
func (w *waitingRoom) evictLocked(candidate func(*visitor) bool) time.Duration {
	var victim *visitor
	longest := time.Duration(-1 << 63)
	now := time.Now()
	for v := range w.visitors {
		if candidate(v) {
			if idle := v.idle(now); idle > longest {
				victim, longest = v, idle
			}
		}
	}
	if victim == nil || longest < 0 {
		return min(max(-longest, time.Millisecond), 20*time.Millisecond)
	}
	w.removeLocked(victim)
	victim.conn.Close()
	return 0
}

// crowd is how many times more connections than a newcomer's an address has, when
// one of them makes room for him.
const crowd = 16

// crowdLocked turns out a visitor of the address that has most, where those are a
// crowd beside the newcomer's: the one that has kept the gateway waiting longest,
// if that is longer than anybody needs who is on his way.
func (w *waitingRoom) crowdLocked(newcomer netip.Addr) bool {
	var crowded netip.Addr
	least := crowd * (w.addresses[newcomer] + 1)
	most := least
	for address, n := range w.addresses {
		if n > most {
			crowded, most = address, n
		}
	}
	if most == least {
		return false
	}
	var victim *visitor
	longest, now := patienceSilent, time.Now()
	for v := range w.visitors {
		if v.address == crowded {
			if kept := v.kept(now); kept > longest {
				victim, longest = v, kept
			}
		}
	}
	if victim == nil {
		return false
	}
	w.removeLocked(victim)
	victim.conn.Close()
	return true
}

// addressOf is what counts as one address: an IPv4 address, an IPv6 /64. The zero
// Addr stands for a Unix socket.
func addressOf(a net.Addr) netip.Addr {
	address := peerOf(a).Addr()
	if address.Is6() {
		prefix, _ := address.WithZone("").Prefix(64)
		return prefix.Addr()
	}
	return address
}

// peerOf is the address and port of a TCP connection, zero for others.
func peerOf(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// isLocal says whether nobody but this machine can listen in.
func isLocal(a net.Addr) bool {
	if a.Network() == "unix" {
		return true
	}
	return peerOf(a).Addr().IsLoopback()
}

const (
	maxFailingAddresses = 4096
	maxHeld             = 1024 // answers held back, in all
	maxHeldPerAddress   = 32
	failureForgotten    = 10 * time.Second // one failure of an address is forgotten each
)

// failures slows those down who try passwords that are no credentials. It cannot
// be guessing that succeeds, since the passwords are signatures; what is saved is
// the machine's time and the audit log. Only the answer to a failure is held
// back, by a timer: whoever shares the address and has a credential is not
// slowed, and no goroutine sleeps. Safe for concurrent use.
type failures struct {
	delay, most time.Duration

	mu   sync.Mutex // guards what follows
	seen map[netip.Addr]failing
	held int
}

type failing struct {
	count float64
	at    time.Time
	held  int
}

func newFailures(delay, most time.Duration) *failures {
	return &failures{delay: delay, most: most, seen: map[netip.Addr]failing{}}
}

// hold counts a failure of address, and calls answer when its time has come, from
// another goroutine. The time counts from since, so that it does not show how far
// a check got before it failed.
func (f *failures) hold(address netip.Addr, since time.Time, answer func()) {
	now := time.Now()
	if since.IsZero() {
		since = now
	}
	f.mu.Lock()
	entry, known := f.seen[address]
	if !known && len(f.seen) >= maxFailingAddresses {
		for a, e := range f.seen { // one at random; those who wait for an answer stay
			if e.held == 0 {
				delete(f.seen, a)
				break
			}
		}
	}
	entry.count = max(0, entry.count-now.Sub(entry.at).Seconds()/failureForgotten.Seconds()) + 1
	entry.at = now
	delay := f.delay / 10
	if n := entry.count - 2; n > -0.5 {
		delay = f.most
		if n < 16 {
			delay = min(f.delay<<max(0, int(n+0.5)), f.most)
		}
	}
	if f.held >= maxHeld || entry.held >= maxHeldPerAddress {
		f.mu.Unlock()
		answer()
		return
	}
	f.held++
	entry.held++
	f.seen[address] = entry
	f.mu.Unlock()

	time.AfterFunc(delay-now.Sub(since), func() {
		f.mu.Lock()
		f.held--
		if entry, ok := f.seen[address]; ok {
			entry.held--
			f.seen[address] = entry
		}
		f.mu.Unlock()
		answer()
	})
}
