package iam

import (
	"cmp"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// decimal is a number as text, so that comparisons are exact for any number of digits.
// The parts are substrings of the input: whole without leading zeros, fraction without
// trailing ones.
type decimal struct {
	negative        bool
	whole, fraction string
}

const maxExponent = 400

// parseDecimal parses a number as in JSON, with leading zeros allowed.
func parseDecimal(s string) (decimal, bool) {
	var d decimal
	for i := range len(s) {
		if s[i]|0x20 == 'e' {
			return scaled(s[:i], s[i+1:])
		}
	}
	if s != "" && s[0] == '-' {
		d.negative, s = true, s[1:]
	}
	point := strings.IndexByte(s, '.')
	if point < 0 {
		point = len(s)
	}
	if !digits(s[:point]) || point < len(s) && !digits(s[point+1:]) {
		return decimal{}, false
	}
	start, end := 0, len(s)
	for start < point && s[start] == '0' {
		start++
	}
	for end > point && (s[end-1] == '0' || end == point+1) {
		end--
	}
	d.whole = s[start:point]
	if end > point {
		d.fraction = s[point+1 : end]
	}
	if d.whole == "" && d.fraction == "" {
		d.negative = false
	}
	return d, true
}

// scaled writes a number without its exponent.
func scaled(mantissa, exponent string) (decimal, bool) {
	shift, err := strconv.Atoi(exponent)
	d, ok := parseDecimal(mantissa)
	if err != nil || !ok || shift < -maxExponent || shift > maxExponent || strings.ContainsAny(mantissa, "eE") {
		return decimal{}, false
	}
	if shift >= 0 {
		padded := d.fraction + strings.Repeat("0", max(0, shift-len(d.fraction)))
		d.whole, d.fraction = d.whole+padded[:shift], padded[shift:]
	} else {
		padded := strings.Repeat("0", max(0, -shift-len(d.whole))) + d.whole
		cut := len(padded) + shift
		d.whole, d.fraction = padded[:cut], padded[cut:]+d.fraction
	}
	d.whole = strings.TrimLeft(d.whole, "0")
	d.fraction = strings.TrimRight(d.fraction, "0")
	return d, true
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

func (d decimal) compare(e decimal) int {
	if d.negative != e.negative {
		if d.negative {
			return -1
		}
		return 1
	}
	c := len(d.whole) - len(e.whole)
	if c == 0 {
		c = strings.Compare(d.whole, e.whole)
	}
	if c == 0 {
		c = strings.Compare(d.fraction, e.fraction)
	}
	if d.negative {
		return -c
	}
	return c
}

// instant is a point in time; seconds since 1970 and nanoseconds.
type instant struct {
	seconds int64
	nanos   int
}

func (i instant) compare(j instant) int {
	return cmp.Or(cmp.Compare(i.seconds, j.seconds), cmp.Compare(i.nanos, j.nanos))
}

// parseInstant reads the forms of the W3C profile of ISO 8601 (year, month, day, and day with time
// and offset) and seconds since 1970. Four digits are a year.
func parseInstant(s string) (instant, bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	if digits(whole) && len(whole) != 4 {
		seconds, err := strconv.ParseInt(whole, 10, 64)
		nanos, ok := parseFraction(fraction, len(s) > len(whole))
		return instant{seconds, nanos}, err == nil && ok
	}
	month, day := 1, 1
	year, rest, ok := number(s, 4)
	if ok && rest != "" {
		month, rest, ok = separated(rest, '-')
		if ok && rest != "" {
			day, rest, ok = separated(rest, '-')
		}
	}
	if !ok {
		return instant{}, false
	}
	date := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	if date.Year() != year || int(date.Month()) != month || date.Day() != day {
		return instant{}, false
	}
	if rest == "" {
		return instant{seconds: date.Unix()}, true
	}
	seconds, nanos, ok := parseClock(rest)
	return instant{date.Unix() + int64(seconds), nanos}, ok
}

// parseClock reads Thh:mm, Thh:mm:ss or Thh:mm:ss.s and the offset that has to
// follow, as seconds from midnight UTC.
func parseClock(s string) (seconds, nanos int, ok bool) {
	hour, s, ok := separated(s, 'T')
	if !ok {
		return 0, 0, false
	}
	minute, s, ok := separated(s, ':')
	if !ok || hour > 23 || minute > 59 {
		return 0, 0, false
	}
	seconds = hour*3600 + minute*60
	if strings.HasPrefix(s, ":") {
		var second int
		second, s, ok = separated(s, ':')
		if !ok || second > 59 {
			return 0, 0, false
		}
		seconds += second
		if strings.HasPrefix(s, ".") {
			end := 1
			for end < len(s) && s[end] >= '0' && s[end] <= '9' {
				end++
			}
			if nanos, ok = parseFraction(s[1:end], true); !ok {
				return 0, 0, false
			}
			s = s[end:]
		}
	}
	if s == "Z" {
		return seconds, nanos, true
	}
	sign := 1
	if strings.HasPrefix(s, "-") {
		sign = -1
	} else if !strings.HasPrefix(s, "+") {
		return 0, 0, false
	}
	hour, s, ok = number(s[1:], 2)
	if !ok {
		return 0, 0, false
	}
	minute, s, ok = separated(s, ':')
	if !ok || s != "" || hour > 23 || minute > 59 {
		return 0, 0, false
	}
	return seconds - sign*(hour*3600+minute*60), nanos, true
}

// parseFraction reads up to nine digits after a decimal point as nanoseconds.
func parseFraction(s string, present bool) (int, bool) {
	if !present {
		return 0, true
	}
	if !digits(s) || len(s) > 9 {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n * int(math.Pow10(9-len(s))), err == nil
}

// separated reads a separator and two digits.
func separated(s string, separator byte) (n int, rest string, ok bool) {
	if s == "" || s[0] != separator {
		return 0, s, false
	}
	return number(s[1:], 2)
}

func number(s string, width int) (n int, rest string, ok bool) {
	if len(s) < width || !digits(s[:width]) {
		return 0, s, false
	}
	n, err := strconv.Atoi(s[:width])
	return n, s[width:], err == nil
}

// parsePrefix reads a CIDR range; an address alone is a range of one. Bits after
// the prefix are ignored, as IAM ignores them.
func parsePrefix(s string) (netip.Prefix, bool) {
	if !strings.Contains(s, "/") {
		addr, ok := parseAddr(s)
		return netip.PrefixFrom(addr, addr.BitLen()), ok
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, false
	}
	if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), true
}

// parseAddr reads an address. An IPv4 address in IPv6 notation counts as the IPv4 address,
// because otherwise a caller could bypass a Deny.
func parseAddr(s string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, false
	}
	return addr.Unmap(), true
}

func parseBool(s string) (value, ok bool) {
	switch {
	case len(s) == 4 && equalFold(s, "true"):
		return true, true
	case len(s) == 5 && equalFold(s, "false"):
		return false, true
	}
	return false, false
}

// canonicalBase64 reports whether s is base64 as RFC 4648 section 4 has it, with
// padding and zero bits at the end. Two such texts stand for the same bytes only
// when they are equal, so BinaryEquals compares texts.
func canonicalBase64(s string) bool {
	body := strings.TrimRight(s, "=")
	padding := len(s) - len(body)
	if len(s)%4 != 0 || padding > 2 {
		return false
	}
	last := 0
	for i := range len(body) {
		if last = strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", body[i]); last < 0 {
			return false
		}
	}
	return last&(1<<(2*padding)-1) == 0
}
