package sigv4

import (
	"slices"
	"strings"
)

// maxQueryPairs bounds the sorting that a stranger can ask for.
const maxQueryPairs = 4096

// queryPair is one parameter of the query string in canonical encoding, and its
// decoded name.
type queryPair struct {
	plain       string
	name, value string
}

// parseQuery returns the parameters of the query string in canonical order:
// percent-decoded, encoded again in one way, sorted by encoded name and then by encoded
// value. "+" is a space, as in a form; a name without "=" has the empty value; empty
// pairs are ignored.
func parseQuery(raw string) ([]queryPair, error) {
	if raw == "" {
		return nil, nil
	}
	count := strings.Count(raw, "&") + 1
	if count > maxQueryPairs {
		return nil, refuse(ErrQuery, "The query string has too many parameters.")
	}
	pairs := make([]queryPair, 0, count)
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		plain, ok1 := unescape(name)
		plainValue, ok2 := unescape(value)
		if !ok1 || !ok2 {
			return nil, refuse(ErrQuery, "The query string is not percent-encoded correctly.")
		}
		pairs = append(pairs, queryPair{plain, escape(plain), escape(plainValue)})
	}
	slices.SortFunc(pairs, func(a, b queryPair) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	return pairs, nil
}

// signing has the decoded values of the parameters that presign a URL.
type signing struct {
	algorithm, credential, date, expires, signedHeaders, token, signature, contentHash string

	hasExpires bool
	any        bool // the URL has at least one
}

// signingParameters extracts the parameters of the signature. It refuses duplicates, because it
// would be unclear which one counts. Names are compared in AWS's spelling.
func signingParameters(pairs []queryPair) (signing, error) {
	var s signing
	for i, p := range pairs {
		var to *string
		switch p.plain {
		case queryAlgorithm:
			to = &s.algorithm
		case queryCredential:
			to = &s.credential
		case queryDate:
			to = &s.date
		case queryExpires:
			to, s.hasExpires = &s.expires, true
		case querySignedHeaders:
			to = &s.signedHeaders
		case queryToken:
			to = &s.token
		case querySignature:
			to = &s.signature
		case queryContentHash:
			to = &s.contentHash
		default:
			continue
		}
		s.any = s.any || p.plain != queryContentHash
		if i > 0 && pairs[i-1].name == p.name { // sorted
			return s, refuse(ErrDuplicate, "The query string must not have "+p.plain+" more than once.")
		}
		*to, _ = unescape(p.value)
	}
	return s, nil
}

// unescape decodes %XX and "+", and reports whether it could.
func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '+':
			b = append(b, ' ')
		case '%':
			if i+2 >= len(s) {
				return "", false
			}
			high, low := unhex(s[i+1]), unhex(s[i+2])
			if high|low > 15 {
				return "", false
			}
			b = append(b, high<<4|low)
			i += 2
		default:
			b = append(b, s[i])
		}
	}
	return string(b), true
}

// unhex returns the value of a hexadecimal digit, or 255.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// escape encodes every byte that is not unreserved in RFC 3986.
func escape(s string) string {
	for i := 0; i < len(s); i++ {
		if !unreserved(s[i]) {
			return string(appendEscaped(make([]byte, 0, len(s)+16), s, false))
		}
	}
	return s
}

func appendEscaped(b []byte, s string, keepSlash bool) []byte {
	const digits = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		c := s[i]
		if unreserved(c) || c == '/' && keepSlash {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}

func unreserved(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == '-' || c == '.' || c == '_' || c == '~'
}
