package throttle

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// Lines bounds what strangers can cause to be written, in lines and in bytes. The
// bounds are above what honest mistakes need, and low enough that a flood fills no disk.
// Beyond them a line is written as often as the bounds allow, with the number of lines
// that were omitted. Safe for concurrent use.
type Lines struct {
	address *Keys[netip.Addr]
	name    *Keys[string]
	all     *Keys[struct{}]
	omitted atomic.Int64 // since the last line
}

// Stranger is what is known about a peer that has proved nothing.
type Stranger struct {
	Address netip.Addr // as admission.Network returns it
	// Name is who the stranger claims to be, such as an access key ID, or has proved to
	// be without being admitted. Optional.
	Name string
}

// NewLines bounds the lines about one address or one name, and all lines together.
func NewLines(one, all Limit) *Lines {
	const most = 1 << 16
	return &Lines{address: NewKeys[netip.Addr](one, most), name: NewKeys[string](one, most), all: NewKeys[struct{}](all, 1)}
}

// Next reports whether a line of this many bytes may be written. omitted is the number
// of lines, about any stranger, that were not written since the last one.
func (l *Lines) Next(who Stranger, bytes int, now time.Time) (write bool, omitted int64) {
	if !l.address.Take(who.Address, bytes, now) ||
		who.Name != "" && !l.name.Take(who.Name, bytes, now) ||
		!l.all.Take(struct{}{}, bytes, now) {
		l.omitted.Add(1)
		return false, 0
	}
	return true, l.omitted.Swap(0)
}
