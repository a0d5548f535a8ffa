package api

import (
	"net/http"
	"net/netip"
	"strings"
)

// source is where a request comes from, as far as that can be trusted.
type source struct {
	address netip.Addr // not valid if the listener is not a TCP socket
	secure  bool       // TLS to us, or to a trusted proxy, according to its header
}

// sourceOf finds the client behind the proxies that the operator trusts.
//
// Every proxy appends to X-Forwarded-For the address that the request came from, so
// only the entries of trusted proxies can be trusted. The header is read from the
// right: the first address that is not a trusted proxy is the client's. Everything to
// the left of it was written by the client. Without trusted proxies the headers are
// ignored.
func sourceOf(r *http.Request, trusted []netip.Prefix) source {
	peer := parseAddress(r.RemoteAddr)
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
			hop := parseAddress(strings.TrimSpace(entry))
			if !hop.IsValid() {
				return s // not an address: the client is unknown
			}
			s.address = hop
			if !contains(trusted, hop) {
				return s
			}
		}
	}
	return s
}

// parseAddress reads an address with or without a port. An IPv4 address in IPv6 form
// becomes IPv4, as policies write it.
func parseAddress(text string) netip.Addr {
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

// fromWebPage reports whether a browser sent the request for a web page. Otherwise any
// page that is open in a browser near the API could call unsigned actions: a form or an
// image needs no permission, and would carry the page author's requests into a closed
// network. Requests for a URL that a person typed, and those of other programs, have
// neither header.
func fromWebPage(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return r.Header.Get("Origin") != "" || site != "" && site != "none"
}
