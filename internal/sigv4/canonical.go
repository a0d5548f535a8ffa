package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// appendCanonicalRequest appends the canonical request that the client signed. token
// reports whether the URL was signed with its session token.
func (v *Verifier) appendCanonicalRequest(b []byte, r *http.Request, a *authorization, headers []byte, payload *payloadHash, token bool) []byte {
	b = append(b, r.Method...)
	b = append(b, '\n')
	b = appendPath(b, requestPath(r), v.keepPath)
	b = append(b, '\n')
	first := true
	for _, p := range a.query {
		if a.presigned && (p.plain == querySignature || p.plain == queryToken && !token) {
			continue
		}
		if !first {
			b = append(b, '&')
		}
		first = false
		b = append(b, p.name...)
		b = append(b, '=')
		b = append(b, p.value...)
	}
	b = append(b, '\n')
	b = append(b, headers...)
	b = append(b, '\n')
	b = append(b, a.signedHeaders...)
	b = append(b, '\n')
	return append(b, payload[:]...)
}

func appendStringToSign(b []byte, a *authorization, canonicalRequest []byte) []byte {
	hash := sha256.Sum256(canonicalRequest)
	b = append(b, algorithm+"\n"...)
	b = append(b, a.timestamp...)
	b = append(b, '\n')
	b = append(b, a.scope...)
	b = append(b, '\n')
	return hex.AppendEncode(b, hash[:])
}

// requestPath returns the path as it was on the wire, because that was signed. r.URL
// has it decoded, and handlers may have changed it.
func requestPath(r *http.Request) string {
	if r.RequestURI == "" {
		return r.URL.EscapedPath()
	}
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if !strings.HasPrefix(path, "/") { // absolute form, as proxies are sent
		if _, rest, ok := strings.Cut(path, "://"); ok {
			if slash := strings.IndexByte(rest, '/'); slash >= 0 {
				return rest[slash:]
			}
			return "/"
		}
	}
	return path
}

// appendPath removes empty and dot segments and encodes the rest again: characters that
// were encoded on the wire are then encoded twice, which is the rule of all services but
// S3.
func appendPath(b []byte, path string, keep bool) []byte {
	if path == "" || path == "/" {
		return append(b, '/')
	}
	if keep {
		return appendEscaped(b, path, true)
	}
	var segments []string
	for segment := range strings.SplitSeq(path, "/") {
		switch segment {
		case "", ".":
		case "..":
			segments = segments[:max(0, len(segments)-1)]
		default:
			segments = append(segments, segment)
		}
	}
	for _, segment := range segments {
		b = append(b, '/')
		b = appendEscaped(b, segment, true)
	}
	if len(segments) == 0 || strings.HasSuffix(path, "/") {
		b = append(b, '/')
	}
	return b
}

// maxSignedHeaders bounds the list of signed headers, and so the work of looking
// them up.
const maxSignedHeaders = 2 << 10

// clip keeps a header's name in a message short.
func clip(name string) string { return name[:min(len(name), 64)] }

// checkHeaders appends the canonical form of the signed headers. The list of names must
// follow the specification (lower case, sorted, no duplicates) and have all names that
// must be signed, and the request must have all of them.
func checkHeaders(canonical []byte, r *http.Request, a *authorization) ([]byte, error) {
	if len(a.signedHeaders) > maxSignedHeaders {
		return nil, refuse(ErrSignedHeaders, "SignedHeaders must not be longer than "+strconv.Itoa(maxSignedHeaders)+" bytes.")
	}
	host, last := false, ""
	for name := range strings.SplitSeq(a.signedHeaders, ";") {
		if !lowerToken(name) || name <= last {
			return nil, refuse(ErrSignedHeaders,
				"SignedHeaders must be a list of different header names in lower case, sorted, separated by semicolons.")
		}
		last = name
		var values []string
		if name == "host" {
			// net/http removes Host from the headers.
			host, values = true, []string{r.Host}
		} else if values = r.Header[textproto.CanonicalMIMEHeaderKey(name)]; len(values) == 0 {
			if name != "content-length" || r.ContentLength < 0 {
				return nil, refuse(ErrHeaderAbsent, "A header in SignedHeaders is not in the request: "+clip(name)+".")
			}
			values = []string{strconv.FormatInt(r.ContentLength, 10)}
		}
		canonical = append(canonical, name...)
		for i, value := range values {
			if i == 0 {
				canonical = append(canonical, ':')
			} else {
				canonical = append(canonical, ',')
			}
			canonical = appendTrimmed(canonical, value)
		}
		canonical = append(canonical, '\n')
	}
	if !host {
		return nil, refuse(ErrHostUnsigned, "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	}
	for name := range r.Header {
		if mustBeSigned(name) && !signed(a.signedHeaders, name) {
			return nil, refuse(ErrHeaderUnsigned,
				"There were headers present in the request which were not signed: "+clip(strings.ToLower(name))+".")
		}
	}
	return canonical, nil
}

// mustBeSigned reports whether a header must be signed: anyone on the way could have added
// an unsigned one, and services give these headers a meaning. The session token is exempt,
// because some clients add it after signing.
func mustBeSigned(name string) bool {
	const prefix = "X-Amz-"
	return len(name) > len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) &&
		!strings.EqualFold(name, "X-Amz-Security-Token")
}

// signed reports whether a header is in a list of signed headers.
func signed(list, name string) bool {
	for one := range strings.SplitSeq(list, ";") {
		if strings.EqualFold(one, name) {
			return true
		}
	}
	return false
}

// lowerToken reports whether s is a header name (RFC 9110, section 5.6.2) without
// capitals.
func lowerToken(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// appendTrimmed appends a header value without blanks at either end, and with each run of spaces
// reduced to one. net/http has already joined folded lines.
func appendTrimmed(b []byte, value string) []byte {
	value = strings.Trim(value, " \t\r\n")
	for {
		i := strings.Index(value, "  ")
		if i < 0 {
			return append(b, value...)
		}
		b = append(b, value[:i+1]...)
		value = strings.TrimLeft(value[i:], " ")
	}
}

// checkPayload compares X-Amz-Content-Sha256, in the header and in the query string, with
// the body. It may be absent from both, since the signature covers the body's hash anyway.
// The values with which S3 leaves a body unsigned are refused: DbUser is in the body.
func checkPayload(r *http.Request, a *authorization, payload *payloadHash) error {
	stated, ok, err := only(r.Header, "X-Amz-Content-Sha256")
	if err != nil {
		return err
	}
	if err := checkStated(stated, ok, payload); err != nil {
		return err
	}
	return checkStated(a.contentHash, a.contentHash != "", payload)
}

func checkStated(stated string, ok bool, payload *payloadHash) error {
	switch {
	case !ok || stated == string(payload[:]):
		return nil
	case stated == "UNSIGNED-PAYLOAD" || strings.HasPrefix(stated, "STREAMING-"):
		return refuse(ErrPayloadUnsigned, "The payload must be signed: x-amz-content-sha256 must be the SHA-256 of the body.")
	}
	return refuse(ErrPayloadHash, "The provided 'x-amz-content-sha256' header does not match what was computed.")
}
