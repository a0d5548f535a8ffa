package throttle

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// Lines bounds what strangers can have written down, in lines and in bytes: what goes
// wrong by mistake stays within the bounds, and no flood fills a disk. Beyond them
// there is a line as often as the bounds allow, which tells how many have none. Safe
// for concurrent use.
type Lines struct {
	address *Keys[netip.Addr]
	name    *Keys[string]
	all     *Keys[struct{}]
	omitted atomic.Int64 // since the last line
}

// Stranger is what is known of someone that nothing is proved of.
type Stranger struct {
	Address netip.Addr // counted as it is: one for each network
	// Name is what the stranger claims to be, such as an access key id, or has proved
	// without being let in. Optional.
	Name string
}

// NewLines bounds the lines of one address or of one name, and of all.
func NewLines(one, all Limit) *Lines {
	const most = 1 << 16
	return &Lines{address: NewKeys[netip.Addr](one, most), name: NewKeys[string](one, most), all: NewKeys[struct{}](all, 1)}
}

// Next reports whether there is to be a line of so many bytes. omitted is how often
// there was none, of any stranger, since the last one.
func (l *Lines) Next(who Stranger, bytes int, now time.Time) (write bool, omitted int64) {
	if !l.address.Take(who.Address, bytes, now) ||
		who.Name != "" && !l.name.Take(who.Name, bytes, now) ||
		!l.all.Take(struct{}{}, bytes, now) {
		l.omitted.Add(1)
		return false, 0
	}
	return true, l.omitted.Swap(0)
}
