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

// Encoder appends XML elements to a buffer, without reflection: an answer costs a
// fraction of what signing the password in it does. Element names are the
// program's and written as they are; values are escaped. Each method writes its
// element whatever the value; what a client is to see as absent is left out by not
// calling it.
//
// Text that XML 1.0 cannot carry, control characters and what is not UTF-8, becomes
// U+FFFD: a client can then still parse the answer.
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
	e.buf = value.UTC().AppendFormat(e.buf, "2006-01-02T15:04:05.000Z")
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

// List writes a list of structures: <name><member>…</member>…</name>, with encode
// writing what is in each member.
func List[T any](e *Encoder, name, member string, values []T, encode func(*Encoder, T)) {
	e.start(name)
	for _, value := range values {
		e.start(member)
		encode(e, value)
		e.close(member)
	}
	e.close(name)
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

// text appends character data. A carriage return would be read back as a line
// feed if it were not written as a reference (XML 1.0, section 2.11); tab and line
// feed are references too, so that the text also holds in an attribute.
func (e *Encoder) text(s string) {
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 || r == 0xFFFE || r == 0xFFFF {
				e.buf = append(append(e.buf, s[done:i]...), "\uFFFD"...)
				done = i + size
			}
			i += size
			continue
		}
		if reference := references(c); reference != "" {
			e.buf = append(append(e.buf, s[done:i]...), reference...)
			done = i + 1
		}
		i++
	}
	e.buf = append(e.buf, s[done:]...)
}

// references returns what stands for an ASCII character, "" for itself.
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
