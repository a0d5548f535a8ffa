package awscli

import (
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
)

// yamlText renders a value as version 2 of the AWS CLI does: block style, sorted keys,
// lists not indented below their key, strings without quotes unless they could be read
// as another type, long ones folded at column 80. A value that is neither a list nor an
// object is printed as JSON.
func yamlText(v any) string {
	if _, isTime := v.(pyvalue.Time); isTime || isScalar(v) {
		return pyvalue.JSON(v, 0, false) + "\n"
	}
	var p yamlPrinter
	p.node(v, 0, false)
	if p.column > 0 {
		p.newline(0)
	}
	return p.b.String()
}

// foldColumn is where lines are folded at the next space.
const foldColumn = 80

type yamlPrinter struct {
	b      strings.Builder
	column int
}

func (p *yamlPrinter) put(text string) {
	p.b.WriteString(text)
	p.column += len([]rune(text))
}

func (p *yamlPrinter) newline(indent int) {
	p.b.WriteByte('\n')
	p.b.WriteString(repeat(" ", indent))
	p.column = indent
}

// node writes a value at an indentation. If inline is set, the value continues the current line.
func (p *yamlPrinter) node(v any, indent int, inline bool) {
	start := func(i int) {
		if (i > 0 || !inline) && (p.b.Len() > 0) {
			p.newline(indent)
		}
	}
	switch v := v.(type) {
	case *object:
		if v.Len() == 0 {
			p.put("{}")
			return
		}
		for i, key := range slices.Sorted(slices.Values(v.Keys())) {
			start(i)
			value, _ := v.Get(key)
			if analyze(key).multiline || key == "" || len([]rune(key)) >= longKey {
				p.put("? ")
				p.scalar(key, indent+2, false)
				p.newline(indent)
				p.put(": ")
				p.element(value, indent)
				continue
			}
			p.scalar(key, indent, true)
			p.put(":")
			p.member(value, indent)
		}
	case []any:
		if len(v) == 0 {
			p.put("[]")
			return
		}
		for i, element := range v {
			start(i)
			p.put("- ")
			p.element(element, indent)
		}
	}
}

// longKey is the length from which a key gets its own line.
const longKey = 128

// element writes a value that begins on the current line.
func (p *yamlPrinter) element(v any, indent int) {
	if isScalar(v) {
		p.scalar(v, indent+2, false)
	} else {
		p.node(v, indent+2, true)
	}
}

// member writes the value of a key.
func (p *yamlPrinter) member(v any, indent int) {
	switch v := v.(type) {
	case *object:
		if v.Len() > 0 {
			p.node(v, indent+2, false)
			return
		}
	case []any:
		if len(v) > 0 {
			p.node(v, indent, false)
			return
		}
	}
	p.put(" ")
	if isScalar(v) {
		p.scalar(v, indent+2, false)
	} else {
		p.node(v, indent, true)
	}
}

func (p *yamlPrinter) scalar(v any, indent int, key bool) {
	switch v := v.(type) {
	case nil:
		p.put("null")
	case bool:
		p.put(fmt.Sprint(v))
	case *big.Int:
		p.put(v.String())
	case float64:
		p.put(yamlFloat(v))
	case pyvalue.Time:
		p.put(v.String())
	case string:
		p.text(v, indent, key)
	}
}

func yamlFloat(f float64) string {
	switch text := strings.ToLower(pyvalue.Repr(f)); text {
	case "inf", "nan":
		return "." + text
	case "-inf":
		return "-.inf"
	default:
		if !strings.Contains(text, ".") {
			text = strings.Replace(text, "e", ".0e", 1)
		}
		return text
	}
}

// notText matches plain texts that YAML 1.2 reads as something other than a string.
var notText = regexp.MustCompile(`^(?:` + strings.Join([]string{
	`true|True|TRUE|false|False|FALSE`,
	`~|null|Null|NULL|`,
	`[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?`,
	`[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)`,
	`[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?`,
	`[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)`,
	`[-+]?0b[0-1_]+|[-+]?0o?[0-7_]+|[-+][0-9_]+|[0-9][0-9_]*|[-+]?0x[0-9a-fA-F_]+`,
	`<<|=`,
	`[0-9]{4}-[0-9]{2}-[0-9]{2}`,
	`[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?`,
}, "|") + `)$`)

const (
	yamlBreaks = "\n\u0085\u2028\u2029"
	yamlSpaces = "\x00 \t\r" + yamlBreaks
)

// analysis is how a string can be written.
type analysis struct{ plain, single, multiline bool }

func analyze(s string) analysis {
	if s == "" {
		return analysis{plain: true, single: true}
	}
	runes := []rune(s)
	last := len(runes) - 1
	indicators := strings.HasPrefix(s, "---") || strings.HasPrefix(s, "...")
	edges := strings.ContainsRune(" "+yamlBreaks, runes[0]) || strings.ContainsRune(" "+yamlBreaks, runes[last])
	var special, breaks, breakSpace, spaceBreak bool
	for i, r := range runes {
		before := i == 0 || strings.ContainsRune(yamlSpaces, runes[i-1])
		behind := i == last || strings.ContainsRune(yamlSpaces, runes[i+1])
		switch {
		case i == 0 && strings.ContainsRune("#,[]{}&*!|>'\"%@`", r),
			i == 0 && strings.ContainsRune("?:-", r) && behind,
			r == ':' && behind,
			r == '#' && before:
			indicators = true
		}
		isBreak := strings.ContainsRune(yamlBreaks, r)
		breaks = breaks || isBreak
		if r != '\n' && (r < 0x20 || r > 0x7e) && !printableUnicode(r) {
			special = true
		}
		if i > 0 {
			breakSpace = breakSpace || r == ' ' && strings.ContainsRune(yamlBreaks, runes[i-1])
			spaceBreak = spaceBreak || isBreak && runes[i-1] == ' '
		}
	}
	return analysis{
		plain:     !indicators && !edges && !special && !breaks && !breakSpace && !spaceBreak,
		single:    !special && !breakSpace && !spaceBreak,
		multiline: breaks,
	}
}

func printableUnicode(r rune) bool {
	return r == 0x85 || r >= 0xa0 && r <= 0xd7ff || r >= 0xe000 && r <= 0xfffd && r != 0xfeff || r >= 0x10000 && r < 0x10ffff
}

func (p *yamlPrinter) text(s string, indent int, key bool) {
	a := analyze(s)
	switch {
	case a.plain && !notText.MatchString(s) && !(key && s == ""):
		p.flow([]rune(s), indent, !key, false)
	case a.single && !(key && a.multiline):
		p.put("'")
		p.flow([]rune(s), indent, !key, true)
		p.put("'")
	default:
		p.doubleQuoted([]rune(s), indent, !key)
	}
}

// flow writes a plain or single-quoted string: a single space after the column to fold
// at becomes a line end, and a line break an empty line.
func (p *yamlPrinter) flow(s []rune, indent int, fold, quoted bool) {
	for i := 0; i < len(s); {
		end := i + 1
		switch {
		case s[i] == ' ':
			for end < len(s) && s[end] == ' ' {
				end++
			}
			if end == i+1 && p.column > foldColumn && fold && i > 0 && end < len(s) {
				p.newline(indent)
			} else {
				p.put(string(s[i:end]))
			}
		case strings.ContainsRune(yamlBreaks, s[i]):
			for end < len(s) && strings.ContainsRune(yamlBreaks, s[end]) {
				end++
			}
			if s[i] == '\n' {
				p.b.WriteByte('\n')
			}
			p.b.WriteString(string(s[i:end]))
			p.b.WriteString(repeat(" ", indent))
			p.column = indent
		case s[i] == '\'' && quoted:
			p.put("''")
		default:
			p.put(string(s[i]))
		}
		i = end
	}
}

var yamlEscapes = map[rune]string{
	0: "0", 7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 27: "e",
	'"': `"`, '\\': `\`, 0x85: "N", 0xa0: "_", 0x2028: "L", 0x2029: "P",
}

func (p *yamlPrinter) doubleQuoted(s []rune, indent int, fold bool) {
	p.put(`"`)
	start := 0 // of the part that is not written yet
	for end := 0; end <= len(s); end++ {
		if end == len(s) || mustEscape(s[end]) {
			p.put(string(s[start:end]))
			start = end
			if end < len(s) {
				p.put(escape(s[end]))
				start++
			}
		}
		if end > 0 && end < len(s)-1 && (s[end] == ' ' || start >= end) && p.column+end-start > foldColumn && fold {
			if start < end {
				p.put(string(s[start:end]))
				start = end
			}
			p.put(`\`)
			p.newline(indent)
			if s[start] == ' ' {
				p.put(`\`)
			}
		}
	}
	p.put(`"`)
}

func mustEscape(r rune) bool {
	return strings.ContainsRune("\"\\\u0085\u2028\u2029\ufeff", r) ||
		(r < 0x20 || r > 0x7e) && (r < 0xa0 || r > 0xd7ff) && (r < 0xe000 || r > 0xfffd)
}

func escape(r rune) string {
	if name, ok := yamlEscapes[r]; ok {
		return `\` + name
	}
	switch {
	case r <= 0xff:
		return fmt.Sprintf(`\x%02X`, r)
	case r <= 0xffff:
		return fmt.Sprintf(`\u%04X`, r)
	}
	return fmt.Sprintf(`\U%08X`, r)
}
