package keyring

import "strings"

// passwordMark is what every password of package credential begins with: the tags
// and headers of a CWT signed with Ed25519, up to the key's identifier, in base64url.
// What is signed with another algorithm begins differently, which its test says.
const passwordMark = "2D3ShE2iAScES"

// Redact returns text with "[redacted]" in place of whatever looks like a database
// password of ours, whole or cut off at its end. Nothing decides by it: it keeps a
// password that somebody put in the place of a name out of logs.
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
