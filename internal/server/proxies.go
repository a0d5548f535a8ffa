package server

import (
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// within returns a function that reports whether an address is in one of the networks that
// are configured when it is called.
func within(networks func() []netip.Prefix) func(netip.Addr) bool {
	return func(a netip.Addr) bool {
		return slices.ContainsFunc(networks(), func(p netip.Prefix) bool { return p.Contains(a) })
	}
}

// withoutHeader returns a function that logs, at most once a second, connections that should
// begin with a PROXY protocol header and do not.
func withoutHeader(log *slog.Logger, key string) func(net.Addr, error) {
	var told atomic.Int64
	return func(proxy net.Addr, err error) {
		if now, last := time.Now().Unix(), told.Load(); now != last && told.CompareAndSwap(last, now) {
			log.Warn("connection refused: an address of "+key+" has to send the PROXY protocol first: switch it on there, or take the address out",
				"proxy", proxy, "err", err)
		}
	}
}
