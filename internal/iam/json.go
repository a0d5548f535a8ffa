package iam

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// encoding/json is too forgiving for policies: it takes duplicate keys, names in
// any case and invalid UTF-8, and it forgets where a value stood. This parser
// takes RFC 8259 and nothing else, restricted to the characters that IAM allows,
// and keeps positions.

const (
	maxDocument = 131072 // characters, IAM's policyDocumentType
	maxDepth    = 32     // the grammar needs seven
)

type nodeKind uint8

const (
	objectNode nodeKind = iota
	arrayNode
	stringNode
	numberNode
	boolNode
	nullNode
)

func (k nodeKind) String() string {
	return [...]string{"an object", "a list", "a string", "a number", "a boolean", "null"}[k]
}

// node is a JSON value with its place.
type node struct {
	kind       nodeKind
	text       string // a string decoded; a number or boolean as written
	members    []member
	elements   []*node
	start, end Position // of the first character, and just past the last
	path       string
}

type member struct {
	key   string
	at    Position
	value *node
}

func (n *node) get(key string) *node {
	for i := range n.members {
		if n.members[i].key == key {
			return n.members[i].value
		}
	}
	return nil
}

// fail makes the error that the node's place has.
func (n *node) fail(format string, args ...any) *PolicyError {
	return failAt(n.start, n.path, format, args...)
}

func failAt(at Position, path, format string, args ...any) *PolicyError {
	return &PolicyError{Line: at.Line, Column: at.Column, Path: path, Reason: fmt.Sprintf(format, args...)}
}

type jsonParser struct {
	text  string
	off   int
	at    Position
	space int // insignificant white space read
}

// parseJSON reads one document and says how many characters it has without
// white space between the tokens.
func parseJSON(document []byte) (root *node, size int, err *PolicyError) {
	p := &jsonParser{text: string(document), at: Position{1, 1}}
	characters, err := p.checkCharacters()
	if err != nil {
		return nil, 0, err
	}
	root, err = p.value("", 0)
	if err != nil {
		return nil, 0, err
	}
	p.skipSpace()
	if p.off != len(p.text) {
		return nil, 0, failAt(p.at, "", "something follows the end of the document")
	}
	return root, characters - p.space, nil
}

// checkCharacters refuses what the policy grammar's character set leaves out. It
// goes first, so that the parser proper may count one column for a character.
func (p *jsonParser) checkCharacters() (int, *PolicyError) {
	at, count := Position{1, 1}, 0
	for i, r := range p.text {
		if r == utf8.RuneError {
			if _, width := utf8.DecodeRuneInString(p.text[i:]); width == 1 {
				return 0, failAt(at, "", "not UTF-8")
			}
		}
		if !allowedRune(r) {
			return 0, failAt(at, "", "the character U+%04X is not allowed in a policy", r)
		}
		if count++; count > maxDocument {
			return 0, failAt(at, "", "longer than %d characters", maxDocument)
		}
		at.Column++
		if r == '\n' {
			at = Position{at.Line + 1, 1}
		}
	}
	return count, nil
}

// allowedRune is the character set of the policy grammar: tab, line feed,
// carriage return, U+0020 to U+00FF.
func allowedRune(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || r >= 0x20 && r <= 0xFF
}

func (p *jsonParser) peek() byte {
	if p.off < len(p.text) {
		return p.text[p.off]
	}
	return 0 // not an allowed character, so it stands for the end
}

// next consumes one byte.
func (p *jsonParser) next() byte {
	c := p.text[p.off]
	p.off++
	switch {
	case c == '\n':
		p.at = Position{p.at.Line + 1, 1}
	case c&0xC0 != 0x80: // continuation bytes have no column
		p.at.Column++
	}
	return c
}

func (p *jsonParser) skipSpace() {
	for {
		switch p.peek() {
		case ' ', '\t', '\n', '\r':
			p.next()
			p.space++
		default:
			return
		}
	}
}

func (p *jsonParser) unexpected(path, wanted string) *PolicyError {
	if p.off == len(p.text) {
		return failAt(p.at, path, "not JSON: the document ends where %s should be", wanted)
	}
	r, _ := utf8.DecodeRuneInString(p.text[p.off:])
	return failAt(p.at, path, "not JSON: found %q where %s should be", r, wanted)
}

func (p *jsonParser) value(path string, depth int) (*node, *PolicyError) {
	p.skipSpace()
	if depth > maxDepth {
		return nil, failAt(p.at, path, "nested more than %d deep", maxDepth)
	}
	n := &node{start: p.at, path: path}
	var err *PolicyError
	switch c := p.peek(); {
	case c == '{':
		err = p.object(n, depth)
	case c == '[':
		err = p.array(n, depth)
	case c == '"':
		n.kind = stringNode
		n.text, err = p.string(path)
	case c == '-' || c >= '0' && c <= '9':
		n.kind = numberNode
		n.text, err = p.number(path)
	default:
		err = p.keyword(n)
	}
	n.end = p.at
	return n, err
}

func (p *jsonParser) keyword(n *node) *PolicyError {
	for word, kind := range map[string]nodeKind{"true": boolNode, "false": boolNode, "null": nullNode} {
		if strings.HasPrefix(p.text[p.off:], word) {
			n.kind, n.text = kind, word
			for range word {
				p.next()
			}
			return nil
		}
	}
	return p.unexpected(n.path, "a value")
}

func (p *jsonParser) object(n *node, depth int) *PolicyError {
	n.kind = objectNode
	p.next()
	for {
		p.skipSpace()
		if p.peek() == '}' && len(n.members) == 0 {
			break
		}
		at := p.at
		if p.peek() != '"' {
			return p.unexpected(n.path, "a quoted name")
		}
		key, err := p.string(n.path)
		if err != nil {
			return err
		}
		path := key
		if n.path != "" {
			path = n.path + "." + key
		}
		if n.get(key) != nil {
			return failAt(at, path, "given twice")
		}
		p.skipSpace()
		if p.peek() != ':' {
			return p.unexpected(path, "a colon")
		}
		p.next()
		value, err := p.value(path, depth+1)
		if err != nil {
			return err
		}
		n.members = append(n.members, member{key, at, value})
		p.skipSpace()
		if p.peek() != ',' {
			break
		}
		p.next()
	}
	if p.peek() != '}' {
		return p.unexpected(n.path, "a comma or }")
	}
	p.next()
	return nil
}

func (p *jsonParser) array(n *node, depth int) *PolicyError {
	n.kind = arrayNode
	p.next()
	for {
		p.skipSpace()
		if p.peek() == ']' && len(n.elements) == 0 {
			break
		}
		element, err := p.value(n.path+"["+strconv.Itoa(len(n.elements))+"]", depth+1)
		if err != nil {
			return err
		}
		n.elements = append(n.elements, element)
		p.skipSpace()
		if p.peek() != ',' {
			break
		}
		p.next()
	}
	if p.peek() != ']' {
		return p.unexpected(n.path, "a comma or ]")
	}
	p.next()
	return nil
}

func (p *jsonParser) string(path string) (string, *PolicyError) {
	p.next()
	var b strings.Builder
	for {
		switch c := p.peek(); {
		case c == 0:
			return "", p.unexpected(path, "the end of a string")
		case c == '"':
			p.next()
			return b.String(), nil
		case c < 0x20:
			return "", failAt(p.at, path, "not JSON: a tab or line break inside a string has to be written as an escape")
		case c == '\\':
			r, err := p.escape(path)
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
		default:
			b.WriteByte(p.next())
		}
	}
}

func (p *jsonParser) escape(path string) (rune, *PolicyError) {
	at := p.at
	p.next()
	r := rune(-1)
	switch c := p.peek(); c {
	case '"', '\\', '/':
		r = rune(c)
	case 'b':
		r = '\b'
	case 'f':
		r = '\f'
	case 'n':
		r = '\n'
	case 'r':
		r = '\r'
	case 't':
		r = '\t'
	case 'u':
		if len(p.text)-p.off < 5 {
			break
		}
		// ParseUint takes no sign, and underscores only with base 0.
		if v, err := strconv.ParseUint(p.text[p.off+1:p.off+5], 16, 16); err == nil {
			r = rune(v)
			p.off += 4
			p.at.Column += 4
		}
	}
	if r < 0 {
		return 0, failAt(at, path, "not JSON: unknown escape in a string")
	}
	if !allowedRune(r) {
		return 0, failAt(at, path, "the character U+%04X is not allowed in a policy", r)
	}
	p.next()
	return r, nil
}

// number takes -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?
func (p *jsonParser) number(path string) (string, *PolicyError) {
	start := p.off
	digits := func() bool {
		if c := p.peek(); c < '0' || c > '9' {
			return false
		}
		for c := p.peek(); c >= '0' && c <= '9'; c = p.peek() {
			p.next()
		}
		return true
	}
	if p.peek() == '-' {
		p.next()
	}
	if p.peek() == '0' {
		p.next()
	} else if !digits() {
		return "", p.unexpected(path, "a digit")
	}
	if p.peek() == '.' {
		p.next()
		if !digits() {
			return "", p.unexpected(path, "a digit")
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.next()
		if c := p.peek(); c == '+' || c == '-' {
			p.next()
		}
		if !digits() {
			return "", p.unexpected(path, "a digit")
		}
	}
	return p.text[start:p.off], nil
}
