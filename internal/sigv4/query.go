package sigv4

import (
	"net/url"
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
		plain, err1 := url.QueryUnescape(name)
		plainValue, err2 := url.QueryUnescape(value)
		if err1 != nil || err2 != nil {
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
		*to, _ = url.QueryUnescape(p.value) // escaped above
	}
	return s, nil
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
