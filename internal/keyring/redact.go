package keyring

import "strings"

// passwordMark is the beginning of every password of package credential: the tags and headers of
// a CWT signed with Ed25519, up to the key's identifier, in base64url. With another algorithm it
// would differ; a test checks it.
const passwordMark = "2D3ShE2iAScES"

// Redact returns text with "[redacted]" in place of anything that looks like a database password of
// ours, even if its end is cut off. It is for logs, in case someone typed a password in place of a
// name. No decision depends on it.
func Redact(text string) string {
	if len(text) <= 4*len(passwordMark) {
		return text // most strings; too short for the signature of one
	}
	at := strings.Index(text, passwordMark)
	if at < 0 {
		return text
	}
	end := at + len(passwordMark)
	for end < len(text) && isBase64URL(text[end]) {
		end++
	}
	return text[:at] + redacted + Redact(text[end:])
}

func isBase64URL(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}
