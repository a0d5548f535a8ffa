package pyvalue

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
)

// Str returns a value as the AWS CLI's text and table formats print it: None,
// True and False for null and booleans, strings as they are.
func Str(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	if t, ok := v.(Time); ok {
		return t.String()
	}
	return Repr(v)
}

// Repr returns a value as the AWS CLI prints it inside of a list, in messages
// and in the rare cell that holds a whole list.
func Repr(v any) string {
	var b strings.Builder
	writeRepr(&b, v)
	return b.String()
}

func writeRepr(b *strings.Builder, v any) {
	switch v := v.(type) {
	case nil:
		b.WriteString("None")
	case bool:
		if v {
			b.WriteString("True")
		} else {
			b.WriteString("False")
		}
	case string:
		writeReprString(b, v)
	case *big.Int:
		b.WriteString(v.String())
	case float64:
		b.WriteString(formatFloat(v))
	case []any:
		b.WriteByte('[')
		for i, element := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			writeRepr(b, element)
		}
		b.WriteByte(']')
	case *Object:
		b.WriteByte('{')
		for i, key := range v.Keys() {
			if i > 0 {
				b.WriteString(", ")
			}
			writeReprString(b, key)
			b.WriteString(": ")
			writeRepr(b, v.values[key])
		}
		b.WriteByte('}')
	case Time:
		fmt.Fprintf(b, "datetime.datetime(%s)", v.parts())
	default:
		b.WriteString("<expression>")
	}
}

// parts returns the numbers of a moment as the AWS CLI lists them: without
// leading zeros, and without seconds when they are zero.
func (t Time) parts() string {
	fields := strings.FieldsFunc(t.Date+":"+t.Clock, func(r rune) bool { return r == '-' || r == ':' })
	if len(fields) == 6 && fields[5] == "00" {
		fields = fields[:5]
	}
	for i, field := range fields {
		if n, err := strconv.Atoi(field); err == nil {
			fields[i] = strconv.Itoa(n)
		}
	}
	return strings.Join(fields, ", ")
}

func writeReprString(b *strings.Builder, s string) {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	b.WriteByte(quote)
	for _, r := range s {
		switch {
		case r == rune(quote) || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(b, `\x%02x`, r)
		case r < 0x7f || unicode.IsPrint(r):
			b.WriteRune(r)
		case r <= 0xff:
			fmt.Fprintf(b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			fmt.Fprintf(b, `\U%08x`, r)
		}
	}
	b.WriteByte(quote)
}

// formatFloat prints the shortest text that reads back as the same number,
// always with a point or an exponent.
func formatFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	scientific := strconv.FormatFloat(f, 'e', -1, 64)
	at := strings.IndexByte(scientific, 'e')
	exponent, _ := strconv.Atoi(scientific[at+1:])
	if exponent < -4 || exponent >= 16 {
		return scientific
	}
	plain := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(plain, ".") {
		plain += ".0"
	}
	return plain
}
