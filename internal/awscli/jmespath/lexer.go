package jmespath

import (
	"fmt"
	"math/big"
	"strings"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
)

// Token types carry the names that the messages of the AWS CLI use.
type token struct {
	kind  string
	value any
	start int
}

var simpleTokens = map[rune]string{
	'.': "dot", '*': "star", ']': "rbracket", ',': "comma", ':': "colon",
	'@': "current", '(': "lparen", ')': "rparen", '{': "lbrace", '}': "rbrace",
}

// operators are the tokens of one or two characters: the type when the second
// character follows, and when it does not.
var operators = map[rune]struct {
	second        rune
	double, alone string
}{
	'|': {'|', "or", "pipe"},
	'&': {'&', "and", "expref"},
	'<': {'=', "lte", "lt"},
	'>': {'=', "gte", "gt"},
	'!': {'=', "ne", "not"},
}

type lexer struct {
	text string
	in   []rune
	at   int
	out  []token
}

func tokenize(text string) ([]token, error) {
	if text == "" {
		return nil, &SyntaxError{"Invalid JMESPath expression: cannot be empty."}
	}
	l := lexer{text: text, in: []rune(text)}
	for l.at < len(l.in) {
		if err := l.next(); err != nil {
			return nil, err
		}
	}
	l.out = append(l.out, token{kind: "eof", value: "", start: len(l.in)})
	return l.out, nil
}

func (l *lexer) fail(at int, message string) error {
	return &SyntaxError{fmt.Sprintf("Bad jmespath expression: %s:\n%s\n%s^", message, l.text, strings.Repeat(" ", at))}
}

func (l *lexer) emit(kind string, value any, start, end int) {
	l.out = append(l.out, token{kind: kind, value: value, start: start})
	l.at = end
}

func (l *lexer) is(at int, c rune) bool { return at < len(l.in) && l.in[at] == c }

func isLetter(c rune) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isDigit(c rune) bool { return c >= '0' && c <= '9' }

func (l *lexer) next() error {
	start := l.at
	c := l.in[start]
	if kind, ok := simpleTokens[c]; ok {
		l.emit(kind, string(c), start, start+1)
		return nil
	}
	if op, ok := operators[c]; ok {
		if l.is(start+1, op.second) {
			l.emit(op.double, string(l.in[start:start+2]), start, start+2)
		} else {
			l.emit(op.alone, string(c), start, start+1)
		}
		return nil
	}
	switch {
	case isLetter(c):
		end := start
		for end < len(l.in) && (isLetter(l.in[end]) || isDigit(l.in[end])) {
			end++
		}
		l.emit("unquoted_identifier", string(l.in[start:end]), start, end)
	case strings.ContainsRune(" \t\n\r", c):
		l.at++
	case c == '[':
		switch {
		case l.is(start+1, ']'):
			l.emit("flatten", "[]", start, start+2)
		case l.is(start+1, '?'):
			l.emit("filter", "[?", start, start+2)
		default:
			l.emit("lbracket", "[", start, start+1)
		}
	case c == '\'':
		body, end, err := l.until('\'')
		if err != nil {
			return err
		}
		l.emit("literal", strings.ReplaceAll(body, `\'`, `'`), start, end)
	case c == '`':
		return l.jsonLiteral()
	case c == '"':
		body, end, err := l.until('"')
		if err != nil {
			return err
		}
		name, err := pyvalue.ParseJSON(`"` + body + `"`)
		if err != nil {
			return l.fail(start, err.(*pyvalue.JSONError).Reason)
		}
		l.emit("quoted_identifier", name, start, end)
	case isDigit(c) || c == '-':
		end := start + 1
		for end < len(l.in) && isDigit(l.in[end]) {
			end++
		}
		n, ok := new(big.Int).SetString(string(l.in[start:end]), 10)
		if !ok {
			return l.fail(start, "Unknown token '-'")
		}
		l.emit("number", n, start, end)
	case c == '=':
		if !l.is(start+1, '=') {
			return l.fail(start, "Unknown token '='")
		}
		l.emit("eq", "==", start, start+2)
	default:
		return l.fail(start, "Unknown token "+string(c))
	}
	return nil
}

// until returns the text between the delimiter at the current position and the next one
// without a backslash before it, and the position after that.
func (l *lexer) until(delimiter rune) (string, int, error) {
	var b strings.Builder
	for at := l.at + 1; at < len(l.in); at++ {
		c := l.in[at]
		if c == delimiter {
			return b.String(), at + 1, nil
		}
		b.WriteRune(c)
		if c == '\\' {
			at++
			if at < len(l.in) {
				b.WriteRune(l.in[at])
			}
		}
	}
	return "", 0, l.fail(l.at, fmt.Sprintf("Unclosed %c delimiter", delimiter))
}

// jsonLiteral reads `…`. A text that is not JSON is a string without quotes, as in the
// first version of the language.
func (l *lexer) jsonLiteral() error {
	start := l.at
	body, end, err := l.until('`')
	if err != nil {
		return err
	}
	body = strings.ReplaceAll(body, "\\`", "`")
	value, err := pyvalue.ParseJSON(body)
	if err != nil {
		value, err = pyvalue.ParseJSON(`"` + strings.TrimLeft(body, " \t\n\r\v\f") + `"`)
	}
	if err != nil {
		return l.fail(start, "Bad token "+body)
	}
	l.emit("literal", value, start, end)
	return nil
}
