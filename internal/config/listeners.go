package config

import (
	"crypto/tls"
	"math"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
)

// API is the listener that the AWS APIs are served on.
type API struct {
	Listen         string
	TLS            CertificateFiles
	TrustedProxies []netip.Prefix // proxies whose X-Forwarded-For is trusted
	ProxyProtocol  []netip.Prefix // balancers whose connections begin with a PROXY protocol header
	Limits         Limits
}

// Gateway is the listener that people log on to.
type Gateway struct {
	Listen        string
	TLS           CertificateFiles // empty: the gateway's own CA issues one
	Advertise     Endpoint
	ProxyProtocol []netip.Prefix // as in API
}

// Endpoint is the address of the gateway for clients.
type Endpoint struct {
	Host string
	Port int
}

// CertificateFiles are the absolute paths of a certificate and its key, both PEM, and their
// content. Either both are set or neither.
type CertificateFiles struct {
	Certificate, Key string
	Pair             *tls.Certificate
}

// Given reports whether a certificate is configured.
func (f CertificateFiles) Given() bool { return f.Pair != nil }

// Admin is the operator's listener: metrics, readiness, profiles.
type Admin struct {
	Listen   string // empty: none
	Profiles bool
}

// Metrics is the listener that serves metrics to other machines.
type Metrics struct {
	Listen string // empty: none
	TLS    CertificateFiles
}

// Limits bounds how much of the API callers may use.
type Limits struct {
	Rate, Burst, Concurrent int // for each principal
	Connections             int // in total
	PerAddress              int // for each address: connections, and calls in progress
}

// leastBurst is the default burst, unless twice the rate is more. The default rate is about
// what two processors can serve, so it refuses no call that could be served. The other limits
// keep one principal or address from taking everything at once.
const leastBurst = 40_000

func (a *API) read(s *section) {
	a.Listen = s.listenAddress()
	a.TLS = s.certificate("tls")
	if host, _, err := net.SplitHostPort(a.Listen); err == nil && !IsLoopback(host) && s.at["tls"] == nil {
		s.errorf("listen", "%s is not a loopback address: it needs api.tls with a certificate and a key, since credentials are handed out there", a.Listen)
	}
	a.Limits.read(s.subOrDefaults("limits"))
	a.TrustedProxies = s.prefixes("trusted_proxies")
	a.ProxyProtocol = s.proxyProtocol()
}

// prefixes reads a list of proxies as addresses and CIDR blocks. These proxies are trusted to
// report the client's address.
func (s *section) prefixes(key string) []netip.Prefix {
	var list []netip.Prefix
	for i, text := range s.texts(key) {
		prefix, err := parsePrefix(text)
		if err != nil {
			s.errorf(key, "[%d] is %q, want an address or a CIDR block", i, text)
			continue
		}
		list = append(list, prefix)
	}
	for _, family := range []struct{ name, all string }{{"IPv4", "0.0.0.0/0"}, {"IPv6", "2000::/3"}} {
		if share := shareOf(netip.MustParsePrefix(family.all), list); share >= mostOfInternet {
			s.errorf(key, "has %.3g%% of the %s internet: anyone there could pass for anyone; name the proxies' addresses", 100*share, family.name)
		}
	}
	return list
}

// mostOfInternet is the largest share of public addresses that may be listed as proxies. The
// networks of the largest cloud operators have about a thousandth.
const mostOfInternet = 1.0 / 16

// private are networks that the internet does not reach.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
}

// shareOf returns the share of the public addresses in all that the list covers.
func shareOf(all netip.Prefix, list []netip.Prefix) float64 {
	var share float64
	size := func(p netip.Prefix) float64 { return math.Ldexp(1, all.Bits()-p.Bits()) }
	for i, p := range list {
		if p.Overlaps(all) && p.Bits() < all.Bits() {
			return 1
		}
		contained := !p.Overlaps(all)
		for j, other := range list {
			contained = contained || other.Overlaps(p) && (other.Bits() < p.Bits() || other == p && j < i)
		}
		for _, other := range private {
			contained = contained || other.Overlaps(p) && other.Bits() <= p.Bits()
		}
		if !contained {
			share += size(p)
		}
	}
	return share
}

func (s *section) proxyProtocol() []netip.Prefix {
	sub := s.sub("proxy_protocol")
	if sub == nil {
		return nil
	}
	return sub.prefixes("from")
}

func (l *Limits) read(s *section) {
	l.Rate = s.integer("rate")
	l.Burst = s.integerOr("burst", max(leastBurst, 2*l.Rate))
	l.Concurrent = s.integer("concurrent")
	l.Connections = s.integer("connections")
	l.PerAddress = s.integer("per_address")
}

func (g *Gateway) read(s *section) {
	g.Listen = s.listenAddress()
	g.TLS = s.certificate("tls")
	g.ProxyProtocol = s.proxyProtocol()
	host, port, err := net.SplitHostPort(g.Listen)
	if err != nil {
		return
	}
	number, _ := strconv.Atoi(port)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
		if name, err := os.Hostname(); err == nil {
			host = name
		}
	}
	g.Advertise = Endpoint{Host: host, Port: number}
	if a := s.sub("advertise"); a != nil {
		g.Advertise.Host = a.textOr("host", host)
		if _, err := netip.ParseAddr(g.Advertise.Host); err != nil && !isHostName(g.Advertise.Host) {
			a.errorf("host", "is %q, want a host name or an address", g.Advertise.Host)
		}
		g.Advertise.Port = a.integerOr("port", number)
	}
}

func (a *Admin) read(s *section) {
	a.Listen = s.listenAddress()
	if host, _, err := net.SplitHostPort(a.Listen); err == nil && !IsLoopback(host) {
		s.errorf("listen", "%s is not a loopback address: the listener asks for no password; "+
			"have a local agent scrape it, or put a proxy that asks for one in front of it", a.Listen)
	}
	a.Profiles = s.boolean("pprof")
}

func (m *Metrics) read(s *section) {
	m.Listen = s.listenAddress()
	m.TLS = s.certificate("tls")
}

// listenAddress reads the key listen of a section.
func (s *section) listenAddress() string {
	const name = "listen"
	address := s.text(name)
	if address == "" {
		return ""
	}
	_, port, err := net.SplitHostPort(address)
	if number, atoiErr := strconv.Atoi(port); err != nil || atoiErr != nil || number < 0 || number > 65535 {
		s.errorf(name, "is %q, want %s", address, s.key(name).want)
		return ""
	}
	return address
}

// certificate reads the pair of PEM files in a section.
func (s *section) certificate(name string) CertificateFiles {
	if sub := s.sub(name); sub != nil {
		return sub.pair()
	}
	return CertificateFiles{}
}

// pair reads the section's two files.
func (s *section) pair() CertificateFiles {
	files := CertificateFiles{Certificate: s.filePath("certificate"), Key: s.filePath("key")}
	certificate, key := s.contents("certificate"), s.contents("key")
	if certificate == nil || key == nil {
		return files
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		s.errorf("certificate", "%s and %s are not a certificate and its key: %v", files.Certificate, files.Key, err)
		return files
	}
	files.Pair = &pair
	return files
}

// parsePrefix reads an address or a CIDR block. An IPv4 address mapped into IPv6 becomes
// IPv4, like the addresses it is compared with.
func parsePrefix(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if address, addressErr := netip.ParseAddr(text); addressErr == nil {
		prefix, err = netip.PrefixFrom(address, address.BitLen()), nil
	}
	if address := prefix.Addr(); err == nil && address.Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(address.Unmap(), prefix.Bits()-96)
	}
	return prefix, err
}

var hostPattern = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?$`)

// isHostName reports whether the name has a form that a client could look up: labels of
// letters, digits, hyphens and underscores, separated by dots.
func isHostName(name string) bool { return len(name) <= 253 && hostPattern.MatchString(name) }

// IsLoopback reports whether only this machine can reach a listener on host.
func IsLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
