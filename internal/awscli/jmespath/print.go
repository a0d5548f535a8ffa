package jmespath

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

// JSON returns a value as JSON. indent is the number of spaces of a level, 0
// for everything on one line. ascii escapes what is not ASCII.
func JSON(v any, indent int, ascii bool) string {
	p := jsonPrinter{indent: indent, ascii: ascii, comma: ",", colon: ": "}
	if indent == 0 {
		p.comma = ", "
	}
	p.write(v, 0)
	return p.b.String()
}

// compactJSON is JSON without any space, all ASCII: what to_string() returns.
func compactJSON(v any) string {
	p := jsonPrinter{ascii: true, comma: ",", colon: ":", text: true}
	p.write(v, 0)
	return p.b.String()
}

type jsonPrinter struct {
	b            strings.Builder
	indent       int
	ascii        bool
	comma, colon string
	text         bool // moments as text, with a space
}

func (p *jsonPrinter) write(v any, depth int) {
	switch v := v.(type) {
	case nil:
		p.b.WriteString("null")
	case bool:
		p.b.WriteString(strconv.FormatBool(v))
	case string:
		p.writeString(v)
	case *big.Int:
		p.b.WriteString(v.String())
	case float64:
		switch {
		case math.IsNaN(v):
			p.b.WriteString("NaN")
		case math.IsInf(v, 1):
			p.b.WriteString("Infinity")
		case math.IsInf(v, -1):
			p.b.WriteString("-Infinity")
		default:
			p.b.WriteString(formatFloat(v))
		}
	case []any:
		if len(v) == 0 {
			p.b.WriteString("[]")
			return
		}
		p.b.WriteByte('[')
		for i, element := range v {
			p.separate(i, depth+1)
			p.write(element, depth+1)
		}
		p.newline(depth)
		p.b.WriteByte(']')
	case *Object:
		if v.Len() == 0 {
			p.b.WriteString("{}")
			return
		}
		p.b.WriteByte('{')
		for i, key := range v.Keys() {
			p.separate(i, depth+1)
			p.writeString(key)
			p.b.WriteString(p.colon)
			p.write(v.values[key], depth+1)
		}
		p.newline(depth)
		p.b.WriteByte('}')
	case Time:
		if p.text {
			p.writeString(v.String())
		} else {
			p.writeString(v.Date + "T" + v.Clock)
		}
	default:
		p.writeString("<expression>")
	}
}

func (p *jsonPrinter) separate(i, depth int) {
	if i > 0 {
		p.b.WriteString(p.comma)
	}
	p.newline(depth)
}

func (p *jsonPrinter) newline(depth int) {
	if p.indent > 0 {
		p.b.WriteByte('\n')
		p.b.WriteString(repeat(" ", p.indent*depth))
	}
}

func (p *jsonPrinter) writeString(s string) {
	p.b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			p.b.WriteByte('\\')
			p.b.WriteRune(r)
		case r == '\n':
			p.b.WriteString(`\n`)
		case r == '\r':
			p.b.WriteString(`\r`)
		case r == '\t':
			p.b.WriteString(`\t`)
		case r == '\f':
			p.b.WriteString(`\f`)
		case r == '\b':
			p.b.WriteString(`\b`)
		case r < 0x20:
			fmt.Fprintf(&p.b, `\u%04x`, r)
		case r < 0x7f || !p.ascii:
			p.b.WriteRune(r)
		case r == 0x7f:
			p.b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&p.b, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			fmt.Fprintf(&p.b, `\u%04x`, r)
		}
	}
	p.b.WriteByte('"')
}
