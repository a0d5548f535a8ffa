package awsquery

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// Result is what an action answers: it writes its members, in the model's order,
// into the ActionResult element.
//
//	func (c cluster) EncodeXML(e *awsquery.Encoder) {
//		e.String("ClusterIdentifier", c.identifier)
//		e.Element("Endpoint", func() {
//			e.String("Address", c.host)
//			e.Int("Port", c.port)
//		})
//		e.Strings("Zones", "member", c.zones)
//	}
type Result interface {
	EncodeXML(*Encoder)
}

// ResultFunc is a function that is a Result.
type ResultFunc func(*Encoder)

// EncodeXML calls f.
func (f ResultFunc) EncodeXML(e *Encoder) { f(e) }

// Encoder appends XML elements to a buffer, without reflection: encoding an answer takes a fraction
// of the time of signing its password. Element names are written as they are, values are escaped.
// Each method writes its element even if the value is empty; callers do not call it if the element
// should be absent.
//
// Text that XML 1.0 cannot represent, such as control characters and invalid UTF-8,
// becomes U+FFFD, so that clients can parse the answer.
type Encoder struct {
	buf []byte
}

// String writes <name>value</name>.
func (e *Encoder) String(name, value string) {
	e.start(name)
	e.text(value)
	e.close(name)
}

// Int writes a decimal number.
func (e *Encoder) Int(name string, value int) {
	e.start(name)
	e.buf = strconv.AppendInt(e.buf, int64(value), 10)
	e.close(name)
}

// Bool writes true or false.
func (e *Encoder) Bool(name string, value bool) {
	e.start(name)
	e.buf = strconv.AppendBool(e.buf, value)
	e.close(name)
}

// Time writes an ISO 8601 time in UTC with milliseconds, cut and not rounded, so
// that an expiry is never announced later than it is.
func (e *Encoder) Time(name string, value time.Time) {
	e.start(name)
	value = value.UTC()
	e.buf = value.AppendFormat(e.buf, time.RFC3339)
	ms := value.Nanosecond() / 1e6
	e.buf = append(e.buf[:len(e.buf)-len("Z")], '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
	e.close(name)
}

// Strings writes a list: <name><member>…</member>…</name>.
func (e *Encoder) Strings(name, member string, values []string) {
	e.start(name)
	for _, value := range values {
		e.String(member, value)
	}
	e.close(name)
}

// Element writes what members writes between <name> and </name>.
func (e *Encoder) Element(name string, members func()) {
	e.start(name)
	members()
	e.close(name)
}

// List writes a list of structures: <name><member>…</member>…</name>. encode writes the
// content of a member.
func List[T any](e *Encoder, name, member string, values []T, encode func(*Encoder, T)) {
	e.start(name)
	for _, value := range values {
		e.start(member)
		encode(e, value)
		e.close(member)
	}
	e.close(name)
}

// EncodeResult returns the element of a result alone, for callers in the same process.
func EncodeResult(action string, result Result) []byte {
	var e Encoder
	e.start(action + "Result")
	if result != nil {
		result.EncodeXML(&e)
	}
	e.close(action + "Result")
	return e.buf
}

func (e *Encoder) open(name, namespace string) {
	e.buf = append(e.buf, '<')
	e.buf = append(e.buf, name...)
	e.buf = append(e.buf, ` xmlns="`...)
	e.text(namespace)
	e.buf = append(e.buf, `">`...)
}

func (e *Encoder) start(name string) {
	e.buf = append(e.buf, '<')
	e.buf = append(e.buf, name...)
	e.buf = append(e.buf, '>')
}

func (e *Encoder) close(name string) {
	e.buf = append(e.buf, '<', '/')
	e.buf = append(e.buf, name...)
	e.buf = append(e.buf, '>')
}

// text appends character data. A carriage return becomes a reference, since it would be
// read back as a line feed (XML 1.0, section 2.11); so do tab and line feed, which
// makes the text valid in an attribute too.
func (e *Encoder) text(s string) {
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if asIs[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 || r == 0xFFFE || r == 0xFFFF {
				e.buf = append(append(e.buf, s[done:i]...), "\uFFFD"...)
				done = i + size
			}
			i += size
			continue
		}
		e.buf = append(append(e.buf, s[done:i]...), references(c)...)
		i++
		done = i
	}
	e.buf = append(e.buf, s[done:]...)
}

// asIs marks the ASCII characters that are written as they are. It does not change.
var asIs = func() (table [256]bool) {
	for c := range byte(utf8.RuneSelf) {
		table[c] = references(c) == ""
	}
	return table
}()

// references returns the replacement of an ASCII character, or "".
func references(c byte) string {
	switch c {
	case '<':
		return "&lt;"
	case '>':
		return "&gt;"
	case '&':
		return "&amp;"
	case '"':
		return "&#34;"
	case '\t':
		return "&#x9;"
	case '\n':
		return "&#xA;"
	case '\r':
		return "&#xD;"
	}
	if c < ' ' {
		return "\uFFFD"
	}
	return ""
}
