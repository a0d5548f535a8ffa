package api

import (
	"net/http"
	"net/netip"
	"strings"
)

// source is where a request comes from, as far as that can be believed.
type source struct {
	address netip.Addr // not valid when the listener is no TCP socket
	secure  bool       // TLS to us, or to a trusted proxy that says so
}

// sourceOf finds the client behind the proxies that the operator trusts.
//
// Every proxy appends the address it took the request from to X-Forwarded-For,
// so only the part that trusted proxies wrote can be believed: it is read from
// the right, and the first address that is not a trusted proxy is the client's.
// What stands left of it is the client's own invention. Without trusted proxies
// the headers mean nothing.
func sourceOf(r *http.Request, trusted []netip.Prefix) source {
	peer := addressOf(r.RemoteAddr)
	s := source{address: peer, secure: r.TLS != nil}
	if !contains(trusted, peer) {
		return s
	}
	if protos := r.Header.Values("X-Forwarded-Proto"); len(protos) > 0 {
		last := protos[len(protos)-1]
		s.secure = strings.EqualFold(strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:]), "https")
	}
	lines := r.Header.Values("X-Forwarded-For")
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			var entry string
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, entry = rest[:comma], rest[comma+1:]
			} else {
				entry, more = rest, false
			}
			hop := addressOf(strings.TrimSpace(entry))
			if !hop.IsValid() {
				return s // not an address: what is left of it is unknown
			}
			s.address = hop
			if !contains(trusted, hop) {
				return s
			}
		}
	}
	return s
}

// addressOf reads an address with or without a port. IPv4 in IPv6 clothes is
// IPv4, as policies write it.
func addressOf(text string) netip.Addr {
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	text = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	if !a.IsValid() {
		return false
	}
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// fromWebPage reports whether a browser sent the request for a web page. Unsigned
// actions could be called by any page that a person near the API has open: a form or
// an image needs no permission of the API, and the browser would carry strangers'
// requests into a closed network. A URL that a person types is none of a page's, and
// programs other than browsers send neither header.
func fromWebPage(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return r.Header.Get("Origin") != "" || site != "" && site != "none"
}
