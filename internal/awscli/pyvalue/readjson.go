package pyvalue

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf16"
)

// JSONError is the AWS CLI's message for a text that is not JSON, with the position.
type JSONError struct {
	Reason       string
	Line, Column int
	Offset       int // in characters
}

func (e *JSONError) Error() string {
	return fmt.Sprintf("%s: line %d column %d (char %d)", e.Reason, e.Line, e.Column, e.Offset)
}

// ParseJSON parses one JSON value. It accepts exactly what the AWS CLI accepts: JSON,
// and also NaN, Infinity and -Infinity. The last one of duplicate keys counts. The
// error is a *JSONError.
func ParseJSON(text string) (any, error) {
	r := jsonReader{text: []rune(text)}
	if strings.HasPrefix(text, "\ufeff") {
		return nil, r.fail("Unexpected UTF-8 BOM (decode using utf-8-sig)", 0)
	}
	value, err := r.value(r.space(0), 0)
	if err != nil {
		return nil, err
	}
	if at := r.space(r.at); at != len(r.text) {
		return nil, r.fail("Extra data", at)
	}
	return value, nil
}

// maxJSONDepth bounds how deep arrays and objects nest, so that a hostile
// input ends with an error and not with a stack overflow.
const maxJSONDepth = 900

type jsonReader struct {
	text []rune
	at   int // after the last value
}

func (r *jsonReader) fail(reason string, at int) error {
	line, column := 1, at+1
	for i := 0; i < at && i < len(r.text); i++ {
		if r.text[i] == '\n' {
			line++
			column = at - i
		}
	}
	return &JSONError{Reason: reason, Line: line, Column: column, Offset: at}
}

func (r *jsonReader) space(at int) int {
	for at < len(r.text) && strings.ContainsRune(" \t\n\r", r.text[at]) {
		at++
	}
	return at
}

func (r *jsonReader) is(at int, c rune) bool { return at < len(r.text) && r.text[at] == c }

func (r *jsonReader) literal(at int, word string) bool {
	if len(r.text)-at < len(word) {
		return false
	}
	for i, c := range word {
		if r.text[at+i] != c {
			return false
		}
	}
	r.at = at + len(word)
	return true
}

func (r *jsonReader) value(at, depth int) (any, error) {
	if depth > maxJSONDepth {
		return nil, r.fail("maximum recursion depth exceeded while decoding a JSON value", at)
	}
	if at >= len(r.text) {
		return nil, r.fail("Expecting value", at)
	}
	switch c := r.text[at]; {
	case c == '"':
		return r.str(at)
	case c == '{':
		return r.object(at, depth)
	case c == '[':
		return r.array(at, depth)
	case c == 'n' && r.literal(at, "null"):
		return nil, nil
	case c == 't' && r.literal(at, "true"):
		return true, nil
	case c == 'f' && r.literal(at, "false"):
		return false, nil
	case c == 'N' && r.literal(at, "NaN"):
		return math.NaN(), nil
	case c == 'I' && r.literal(at, "Infinity"):
		return math.Inf(1), nil
	case c == '-' && r.literal(at, "-Infinity"):
		return math.Inf(-1), nil
	case c == '-' || c >= '0' && c <= '9':
		return r.number(at)
	}
	return nil, r.fail("Expecting value", at)
}

func (r *jsonReader) object(at, depth int) (any, error) {
	object := new(Object)
	at = r.space(at + 1)
	if r.is(at, '}') {
		r.at = at + 1
		return object, nil
	}
	for {
		if !r.is(at, '"') {
			return nil, r.fail("Expecting property name enclosed in double quotes", at)
		}
		key, err := r.str(at)
		if err != nil {
			return nil, err
		}
		at = r.space(r.at)
		if !r.is(at, ':') {
			return nil, r.fail("Expecting ':' delimiter", at)
		}
		value, err := r.value(r.space(at+1), depth+1)
		if err != nil {
			return nil, err
		}
		object.Set(key, value)
		at = r.space(r.at)
		if r.is(at, '}') {
			r.at = at + 1
			return object, nil
		}
		if !r.is(at, ',') {
			return nil, r.fail("Expecting ',' delimiter", at)
		}
		at = r.space(at + 1)
	}
}

func (r *jsonReader) array(at, depth int) (any, error) {
	list := []any{}
	at = r.space(at + 1)
	if r.is(at, ']') {
		r.at = at + 1
		return list, nil
	}
	for {
		value, err := r.value(at, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
		at = r.space(r.at)
		if r.is(at, ']') {
			r.at = at + 1
			return list, nil
		}
		if !r.is(at, ',') {
			return nil, r.fail("Expecting ',' delimiter", at)
		}
		at = r.space(at + 1)
	}
}

func (r *jsonReader) str(open int) (string, error) {
	var b strings.Builder
	at := open + 1
	for {
		if at >= len(r.text) {
			return "", r.fail("Unterminated string starting at", open)
		}
		c := r.text[at]
		switch {
		case c == '"':
			r.at = at + 1
			return b.String(), nil
		case c < 0x20:
			return "", r.fail("Invalid control character at", at)
		case c != '\\':
			b.WriteRune(c)
			at++
			continue
		}
		at++
		if at >= len(r.text) {
			return "", r.fail("Unterminated string starting at", open)
		}
		c = r.text[at]
		at++
		if c == 'u' {
			unit, ok := r.hex(at)
			if !ok {
				return "", r.fail(`Invalid \uXXXX escape`, at)
			}
			at += 4
			if utf16.IsSurrogate(unit) && r.is(at, '\\') && r.is(at+1, 'u') {
				if low, ok := r.hex(at + 2); ok {
					if pair := utf16.DecodeRune(unit, low); pair != '\ufffd' {
						unit = pair
						at += 6
					}
				}
			}
			b.WriteRune(unit)
			continue
		}
		i := strings.IndexRune(`"\/bfnrt`, c)
		if i < 0 {
			return "", r.fail(`Invalid \escape`, at-2)
		}
		b.WriteByte("\"\\/\b\f\n\r\t"[i])
	}
}

func (r *jsonReader) hex(at int) (rune, bool) {
	if at+4 > len(r.text) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(r.text[at:at+4]), 16, 16)
	return rune(n), err == nil
}

func (r *jsonReader) digits(at int) int {
	for at < len(r.text) && r.text[at] >= '0' && r.text[at] <= '9' {
		at++
	}
	return at
}

func (r *jsonReader) number(start int) (any, error) {
	at := start
	if r.is(at, '-') {
		at++
	}
	switch {
	case r.is(at, '0'):
		at++
	case r.digits(at) > at:
		at = r.digits(at)
	default:
		return nil, r.fail("Expecting value", start)
	}
	fraction := false
	if r.is(at, '.') && r.digits(at+1) > at+1 {
		at = r.digits(at + 1)
		fraction = true
	}
	if r.is(at, 'e') || r.is(at, 'E') {
		from := at + 1
		if r.is(from, '+') || r.is(from, '-') {
			from++
		}
		if end := r.digits(from); end > from {
			at = end
			fraction = true
		}
	}
	r.at = at
	text := string(r.text[start:at])
	if !fraction {
		n, _ := new(big.Int).SetString(text, 10)
		return n, nil
	}
	f, _ := strconv.ParseFloat(text, 64) // out of range is an infinity, as in the AWS CLI
	return f, nil
}
