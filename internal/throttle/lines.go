package throttle

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// Lines bounds what strangers can have written down: nobody's mistakes reach the
// bounds, and no flood fills a disk. Beyond them there is one line a second, which
// says how many have none. Safe for concurrent use.
type Lines struct {
	address *Keys[netip.Addr]
	all     *Keys[struct{}]
	omitted atomic.Int64 // since the last line
}

// NewLines bounds the lines of one address and of all.
func NewLines(address, all Limit) *Lines {
	const most = 1 << 16
	return &Lines{address: NewKeys[netip.Addr](address, most), all: NewKeys[struct{}](all, 1)}
}

// Next says whether there is a line for what an address has done. omitted is how
// often there was none, for whatever address, since the last one.
func (l *Lines) Next(address netip.Addr, now time.Time) (write bool, omitted int64) {
	if !takeLine(l.address, address, now) || !takeLine(l.all, struct{}{}, now) {
		l.omitted.Add(1)
		return false, 0
	}
	return true, l.omitted.Swap(0)
}

// takeLine takes one from the bucket; an empty one has a line a second.
func takeLine[K comparable](lines *Keys[K], key K, now time.Time) bool {
	pass, verdict := lines.Enter(key, now)
	if verdict == Admitted {
		lines.Leave(key, pass)
	}
	return verdict != RefusedAgain
}
