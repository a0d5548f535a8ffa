package audit

import (
	"fmt"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/keyring"
)

// MaxLine bounds the bytes of a line, newline included. Unauthenticated callers choose
// many of its fields.
const MaxLine = 8 << 10

// detail limits how much of a record is written. The levels are tried in order until the line
// fits: first the caller's own values are cut, then policy names. The caller's identity, and
// the identifiers used to find lines, are cut last.
type detail struct {
	id     int  // bytes of a name or an identifier, escaped
	text   int  // bytes of any other text, escaped
	list   int  // elements of a list
	fields int  // fields of an object
	bare   bool // requestParameters and responseElements are left out
}

// details are the levels, in order. Every line fits at the last level, since a record has at most
// 20 identifiers and 40 other texts.
var details = [...]detail{
	{id: 2048, text: 4096, list: 256, fields: 64},
	{id: 2048, text: 256, list: 64, fields: 64},
	{id: 1280, text: 64, list: 16, fields: 8},
	{id: 192, text: 40, list: 4, bare: true},
}

// fit returns b with the line that encode appends, with as much detail as fits.
func fit(b []byte, encode func(o *object)) []byte {
	at := len(b)
	for i := range details {
		o := object{b: append(b[:at], '{'), detail: &details[i]}
		encode(&o)
		b = o.b
		if len(b)-at <= MaxLine {
			break
		}
	}
	return b
}

const hexDigits = "0123456789abcdef"

// cutMark is the space for the note after a text that was cut.
const cutMark = len("… (1000000000 bytes)")

// appendString appends s as a JSON string with at most most bytes between the quotes. Bytes
// that are not UTF-8 become U+FFFD. In addition to what JSON requires, it escapes characters
// that could mislead the reader of a terminal or a line-based tool: all control characters,
// the line separators U+2028 and U+2029, and the characters that change the direction of
// text. Database passwords are redacted, in whichever field they are.
func appendString(b []byte, s string, most int) []byte {
	b = append(b, '"')
	short := s
	if len(s) > most {
		short = s[:most] // escaping never shortens text; only redacting a password does
	}
	short = keyring.Redact(short)
	var whole bool
	at := len(b)
	b, whole = appendEscaped(b, short, most)
	if !whole || len(s) > most {
		b, _ = appendEscaped(b[:at], short, most-cutMark)
		b = fmt.Appendf(b, "… (%d bytes)", len(s))
	}
	return append(b, '"')
}

// asIs marks the bytes that need no escaping. It does not change.
var asIs = func() (table [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		table[c] = c != '"' && c != '\\'
	}
	return table
}()

// appendEscaped appends at most most bytes, and reports whether that is the whole of s.
func appendEscaped(b []byte, s string, most int) (_ []byte, whole bool) {
	end := len(b) + most
	plain := 0 // s[plain:i] needs no escaping
	for i := 0; i < len(s); {
		if asIs[s[i]] {
			i++
			continue
		}
		var space [6]byte
		size, escaped := escape(space[:0], s[i:])
		if escaped == nil {
			i += size
			continue
		}
		if len(b)+i-plain+len(escaped) > end {
			return appendRunes(b, s[plain:i], end), false
		}
		b = append(append(b, s[plain:i]...), escaped...)
		i += size
		plain = i
	}
	if len(b)+len(s)-plain > end {
		return appendRunes(b, s[plain:], end), false
	}
	return append(b, s[plain:]...), true
}

// appendRunes appends the whole characters of s that fit before end.
func appendRunes(b []byte, s string, end int) []byte {
	n := min(len(s), end-len(b))
	for n > 0 && n < len(s) && !utf8.RuneStart(s[n]) {
		n--
	}
	return append(b, s[:n]...)
}

// escape returns the size of the first character of s and its replacement, or nil if it needs
// none.
func escape(b []byte, s string) (size int, _ []byte) {
	if s[0] < utf8.RuneSelf {
		return 1, appendASCII(b, s[0])
	}
	r, size := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && size == 1 || misleading(r) {
		return size, append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
	}
	return size, nil
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

// misleading reports whether r is escaped because it could mislead a reader, such as
// characters that change the direction of text. All of them are below U+10000.
func misleading(r rune) bool {
	return r < 0xa0 || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
}

// object appends the members of a JSON object, with commas. Members with their zero value are
// left out unless their method says otherwise.
type object struct {
	b      []byte
	detail *detail
}

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
		o.b = appendString(o.b, value, o.detail.text)
	}
}

// id is string for names and identifiers, which are cut later than other texts.
func (o *object) id(name, value string) {
	if value != "" {
		o.name(name)
		o.b = appendString(o.b, value, o.detail.id)
	}
}

// word is string for a value from our code, which needs no escaping.
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
		o.b = value.UTC().AppendFormat(o.b, time.RFC3339)
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
		if i == o.detail.list {
			o.b = fmt.Appendf(o.b, `"… (%d elements)"`, len(values))
			break
		}
		o.b = appendString(o.b, value, o.detail.text)
	}
	o.b = append(o.b, ']')
}

// fields writes an object of fields, or null for none at all.
func (o *object) fields(name string, fields []Field) {
	o.name(name)
	switch {
	case fields == nil:
		o.b = append(o.b, "null"...)
	case o.detail.bare:
		o.b = append(o.b, `{"omitted":true}`...)
	default:
		o.members(fields)
	}
}

func (o *object) members(fields []Field) {
	o.b = append(o.b, '{')
	for i, f := range fields {
		o.comma()
		if i == o.detail.fields {
			o.b = fmt.Appendf(o.b, `"…":"(%d fields)"`, len(fields))
			break
		}
		o.b = appendString(o.b, f.name, o.detail.text)
		o.b = append(o.b, ':')
		switch f.kind {
		case kindString:
			o.b = appendString(o.b, f.text, o.detail.text)
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
