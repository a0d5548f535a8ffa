package iam

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// encoding/json is too lenient for policies: it accepts duplicate keys, names in any
// case and invalid UTF-8, and it loses positions. This parser accepts exactly RFC 8259,
// restricted to the characters that IAM allows, and keeps positions.

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

// node is a JSON value with its position. Its path is derived from its parents on demand,
// because a document of 128 KB can have tens of thousands of values, and names as long as the
// document.
type node struct {
	kind       nodeKind
	text       string   // a decoded string; a number or boolean as written
	children   []*node  // the members of an object, the elements of a list
	start, end Position // of the first character, and just past the last

	parent *node
	name   string   // in the parent, if the parent is an object
	at     Position // of the name
	index  int      // in the parent, if the parent is a list
}

func (n *node) get(name string) *node {
	for _, child := range n.children {
		if child.name == name {
			return child
		}
	}
	return nil
}

// path returns the node's path, such as "Statement[0].Condition.StringEquals".
func (n *node) path() string {
	var path string
	for ; n != nil && n.parent != nil; n = n.parent {
		part := "." + clip(n.name)
		if n.parent.kind == arrayNode {
			part = "[" + strconv.Itoa(n.index) + "]"
		}
		path = part + path
	}
	return strings.TrimPrefix(path, ".")
}

// clip shortens a name from the document for an error message.
func clip(name string) string {
	const most = 128
	for i := range name {
		if i >= most {
			return name[:i] + "…"
		}
	}
	return name
}

// fail makes an error at the node's position.
func (n *node) fail(format string, args ...any) *PolicyError {
	return n.failAt(n.start, format, args...)
}

// failName makes an error at the position of the node's name.
func (n *node) failName(format string, args ...any) *PolicyError {
	return n.failAt(n.at, format, args...)
}

func (n *node) failAt(at Position, format string, args ...any) *PolicyError {
	return &PolicyError{Line: at.Line, Column: at.Column, Path: n.path(), Reason: fmt.Sprintf(format, args...)}
}

type jsonParser struct {
	text  string
	off   int
	at    Position
	space int // insignificant white space read
}

// parseJSON parses one document. size is the number of characters without white space between
// the tokens.
func parseJSON(document []byte) (root *node, size int, err *PolicyError) {
	p := &jsonParser{text: string(document), at: Position{1, 1}}
	characters, err := p.checkCharacters()
	if err != nil {
		return nil, 0, err
	}
	root = new(node)
	if err = p.value(root, 0); err != nil {
		return nil, 0, err
	}
	p.skipSpace()
	if p.off != len(p.text) {
		return nil, 0, (*node)(nil).failAt(p.at, "something follows the end of the document")
	}
	return root, characters - p.space, nil
}

// checkCharacters refuses characters outside the policy grammar's character set. It
// runs first, so that the parser can count one column for each character.
func (p *jsonParser) checkCharacters() (int, *PolicyError) {
	at, count := Position{1, 1}, 0
	for i, r := range p.text {
		if r == utf8.RuneError {
			if _, width := utf8.DecodeRuneInString(p.text[i:]); width == 1 {
				return 0, (*node)(nil).failAt(at, "not UTF-8")
			}
		}
		if !allowedRune(r) {
			return 0, (*node)(nil).failAt(at, "the character U+%04X is not allowed in a policy", r)
		}
		if count++; count > maxDocument {
			return 0, (*node)(nil).failAt(at, "longer than %d characters", maxDocument)
		}
		at.Column++
		if r == '\n' {
			at = Position{at.Line + 1, 1}
		}
	}
	return count, nil
}

// allowedRune reports whether a character is in the policy grammar's character set: tab, line
// feed, carriage return, U+0020 to U+00FF.
func allowedRune(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || r >= 0x20 && r <= 0xFF
}

func (p *jsonParser) peek() byte {
	if p.off < len(p.text) {
		return p.text[p.off]
	}
	return 0 // the end: no allowed character
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

func (p *jsonParser) unexpected(n *node, wanted string) *PolicyError {
	if p.off == len(p.text) {
		return n.failAt(p.at, "not JSON: the document ends where %s should be", wanted)
	}
	r, _ := utf8.DecodeRuneInString(p.text[p.off:])
	return n.failAt(p.at, "not JSON: found %q where %s should be", r, wanted)
}

// value parses the value of n, whose position is already set.
func (p *jsonParser) value(n *node, depth int) (err *PolicyError) {
	p.skipSpace()
	if depth > maxDepth {
		return n.failAt(p.at, "nested more than %d deep", maxDepth)
	}
	n.start = p.at
	switch c := p.peek(); {
	case c == '{':
		err = p.object(n, depth)
	case c == '[':
		err = p.array(n, depth)
	case c == '"':
		n.kind = stringNode
		n.text, err = p.string(n)
	case c == '-' || c >= '0' && c <= '9':
		n.kind = numberNode
		n.text, err = p.number(n)
	default:
		err = p.keyword(n)
	}
	n.end = p.at
	return err
}

func (p *jsonParser) keyword(n *node) *PolicyError {
	for _, k := range [...]struct {
		word string
		kind nodeKind
	}{{"true", boolNode}, {"false", boolNode}, {"null", nullNode}} {
		if strings.HasPrefix(p.text[p.off:], k.word) {
			n.kind, n.text = k.kind, k.word
			for range k.word {
				p.next()
			}
			return nil
		}
	}
	return p.unexpected(n, "a value")
}

func (p *jsonParser) object(n *node, depth int) *PolicyError {
	n.kind = objectNode
	var names map[string]bool // nil if the object is small
	p.next()
	for {
		p.skipSpace()
		if p.peek() == '}' && len(n.children) == 0 {
			break
		}
		child := &node{parent: n, at: p.at}
		if p.peek() != '"' {
			return p.unexpected(n, "a quoted name")
		}
		var err *PolicyError
		if child.name, err = p.string(n); err != nil {
			return err
		}
		if len(n.children) == 16 {
			names = make(map[string]bool)
			for _, earlier := range n.children {
				names[earlier.name] = true
			}
		}
		if names[child.name] || names == nil && n.get(child.name) != nil {
			return child.failName("given twice")
		}
		if names != nil {
			names[child.name] = true
		}
		p.skipSpace()
		if p.peek() != ':' {
			return p.unexpected(child, "a colon")
		}
		p.next()
		if err := p.value(child, depth+1); err != nil {
			return err
		}
		n.children = append(n.children, child)
		p.skipSpace()
		if p.peek() != ',' {
			break
		}
		p.next()
	}
	if p.peek() != '}' {
		return p.unexpected(n, "a comma or }")
	}
	p.next()
	return nil
}

func (p *jsonParser) array(n *node, depth int) *PolicyError {
	n.kind = arrayNode
	p.next()
	for {
		p.skipSpace()
		if p.peek() == ']' && len(n.children) == 0 {
			break
		}
		child := &node{parent: n, index: len(n.children)}
		if err := p.value(child, depth+1); err != nil {
			return err
		}
		n.children = append(n.children, child)
		p.skipSpace()
		if p.peek() != ',' {
			break
		}
		p.next()
	}
	if p.peek() != ']' {
		return p.unexpected(n, "a comma or ]")
	}
	p.next()
	return nil
}

func (p *jsonParser) string(n *node) (string, *PolicyError) {
	p.next()
	var b strings.Builder
	for {
		switch c := p.peek(); {
		case c == 0:
			return "", p.unexpected(n, "the end of a string")
		case c == '"':
			p.next()
			return b.String(), nil
		case c < 0x20:
			return "", n.failAt(p.at, "not JSON: a tab or line break inside a string has to be written as an escape")
		case c == '\\':
			r, err := p.escape(n)
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
		default:
			b.WriteByte(p.next())
		}
	}
}

func (p *jsonParser) escape(n *node) (rune, *PolicyError) {
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
		// ParseUint accepts no sign, and underscores only with base 0.
		if v, err := strconv.ParseUint(p.text[p.off+1:p.off+5], 16, 16); err == nil {
			r = rune(v)
			p.off += 4
			p.at.Column += 4
		}
	}
	if r < 0 {
		return 0, n.failAt(at, "not JSON: unknown escape in a string")
	}
	if !allowedRune(r) {
		return 0, n.failAt(at, "the character U+%04X is not allowed in a policy", r)
	}
	p.next()
	return r, nil
}

// number parses -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?
func (p *jsonParser) number(n *node) (string, *PolicyError) {
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
		return "", p.unexpected(n, "a digit")
	}
	if p.peek() == '.' {
		p.next()
		if !digits() {
			return "", p.unexpected(n, "a digit")
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.next()
		if c := p.peek(); c == '+' || c == '-' {
			p.next()
		}
		if !digits() {
			return "", p.unexpected(n, "a digit")
		}
	}
	return p.text[start:p.off], nil
}
