package pyvalue

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// JSON returns a value as JSON. indent is the number of spaces per level, 0 for
// everything on one line. If ascii is set, characters outside ASCII are escaped.
func JSON(v any, indent int, ascii bool) string {
	p := jsonPrinter{indent: indent, ascii: ascii, comma: ",", colon: ": "}
	if indent == 0 {
		p.comma = ", "
	}
	p.write(v, 0)
	return p.b.String()
}

// CompactJSON returns a value as JSON without spaces and in ASCII.
func CompactJSON(v any) string {
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
		p.b.WriteString(strings.Repeat(" ", p.indent*depth))
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
