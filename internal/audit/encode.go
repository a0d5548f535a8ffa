package audit

import (
	"fmt"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/keyring"
)

const (
	// maxString bounds one string of a line, in bytes: a caller who was not
	// authenticated has a say in the user agent, the action, the access key.
	maxString = 4096
	// maxList bounds the elements of a list.
	maxList = 256
)

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD.
// Beyond what JSON demands it escapes what would fool the reader of a terminal or a
// line-based tool: all control characters, the line separators U+2028 and U+2029,
// and the characters that turn the direction of text. A database password is not
// written, whichever field somebody put it into.
func appendString(b []byte, s string) []byte {
	s = keyring.Redact(s)
	b = append(b, '"')
	if len(s) > maxString {
		cut := maxString
		for !utf8.RuneStart(s[cut]) && cut > maxString-utf8.UTFMax {
			cut--
		}
		b = appendEscaped(b, s[:cut])
		b = fmt.Appendf(b, "… (%d bytes)", len(s))
	} else {
		b = appendEscaped(b, s)
	}
	return append(b, '"')
}

// asIs are the bytes that are written as they are. It does not change.
var asIs = func() (table [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		table[c] = c != '"' && c != '\\'
	}
	return table
}()

func appendEscaped(b []byte, s string) []byte {
	plain := 0 // s[plain:i] goes as it is
	for i := 0; i < len(s); {
		c := s[i]
		if asIs[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[plain:i]...)
			b = appendASCII(b, c)
			i++
			plain = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 || misleading(r) {
			b = append(b, s[plain:i]...)
			b = append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
			plain = i + size
		}
		i += size
	}
	return append(b, s[plain:]...)
}

func appendASCII(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

// misleading says whether r is escaped although it is a character. All of them are
// below U+10000.
func misleading(r rune) bool {
	return r < 0xa0 || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
}

// object appends the members of a JSON object, commas included. Members at their
// zero value are left out unless their method says otherwise.
type object struct{ b []byte }

func (o *object) comma() {
	if last := o.b[len(o.b)-1]; last != '{' && last != '[' {
		o.b = append(o.b, ',')
	}
}

// name begins a member. Names in the code are plain ASCII.
func (o *object) name(name string) {
	o.comma()
	o.b = append(o.b, '"')
	o.b = append(o.b, name...)
	o.b = append(o.b, '"', ':')
}

func (o *object) open(name string) {
	o.name(name)
	o.b = append(o.b, '{')
}

func (o *object) close() { o.b = append(o.b, '}') }

func (o *object) string(name, value string) {
	if value != "" {
		o.name(name)
		o.b = appendString(o.b, value)
	}
}

// word is string for a value from the code that needs no escape.
func (o *object) word(name, value string) {
	o.name(name)
	o.b = append(o.b, '"')
	o.b = append(o.b, value...)
	o.b = append(o.b, '"')
}

// bool writes false as well.
func (o *object) bool(name string, value bool) {
	o.name(name)
	o.b = strconv.AppendBool(o.b, value)
}

// int writes 0 as well.
func (o *object) int(name string, value int64) {
	o.name(name)
	o.b = strconv.AppendInt(o.b, value, 10)
}

func (o *object) time(name string, value time.Time) {
	if !value.IsZero() {
		o.name(name)
		o.b = append(o.b, '"')
		o.b = value.UTC().AppendFormat(o.b, "2006-01-02T15:04:05Z")
		o.b = append(o.b, '"')
	}
}

// milliseconds writes 0 as well.
func (o *object) milliseconds(name string, value time.Duration) {
	o.int(name, value.Milliseconds())
}

// strings writes the empty list as well.
func (o *object) strings(name string, values []string) {
	o.name(name)
	o.list(values)
}

func (o *object) list(values []string) {
	o.b = append(o.b, '[')
	for i, value := range values {
		o.comma()
		if i == maxList {
			o.b = fmt.Appendf(o.b, `"… (%d elements)"`, len(values))
			break
		}
		o.b = appendString(o.b, value)
	}
	o.b = append(o.b, ']')
}

// fields writes an object of fields, or null for none at all.
func (o *object) fields(name string, fields []Field) {
	o.name(name)
	if fields == nil {
		o.b = append(o.b, "null"...)
		return
	}
	o.members(fields)
}

func (o *object) members(fields []Field) {
	o.b = append(o.b, '{')
	for _, f := range fields {
		o.comma()
		o.b = appendString(o.b, f.name)
		o.b = append(o.b, ':')
		switch f.kind {
		case kindString:
			o.b = appendString(o.b, f.text)
		case kindStrings:
			o.list(f.list)
		case kindInt:
			o.b = strconv.AppendInt(o.b, f.number, 10)
		case kindBool:
			o.b = strconv.AppendBool(o.b, f.number != 0)
		case kindObject:
			o.members(f.fields)
		}
	}
	o.b = append(o.b, '}')
}
