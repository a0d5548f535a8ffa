package iam

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// A pattern is a text of a policy, split into tokens at load: literal runs, wildcards
// and policy variables. Matching walks the tokens without substituting anything, so the
// value of a variable is compared as plain text and cannot introduce a wildcard or
// another variable.
type pattern struct {
	text   string // as written
	tokens []token
	plain  bool // at most one literal token, so comparing texts is enough
	least  int  // every matching text has at least this many bytes
	// literal is the last literal token, unless that is the first token too.
	literal string
}

type tokenKind uint8

const (
	literalToken tokenKind = iota
	variableToken
	anyToken     // *
	anyInSegment // * that does not cross a colon
	oneToken     // a run of ?
	oneInSegment // a run of ? that match no colon
)

const maxPatternTokens = 1024

type token struct {
	kind     tokenKind
	count    int32  // how many ? the run has
	text     string // the literal, or the default value of a variable
	variable *variable
}

type variable struct {
	key        string // in the form of lowerKey
	hash       uint32 // the hashKey of key
	name       string // as written
	hasDefault bool
}

// patternMode is the set of special characters in a text.
type patternMode struct {
	wildcards bool
	variables bool
	// segments keeps wildcards from crossing colons, except a * that ends a segment (UG
	// reference_policies_elements_resource).
	segments bool
}

var (
	errVariableOpen  = errors.New("a policy variable has no closing brace")
	errVariableName  = errors.New("a policy variable has no name, or one with a blank, quote, brace or dollar sign in it")
	errVariableQuote = errors.New("the default of a policy variable has to stand in single quotes: ${key, 'text'}")
	errTooManyParts  = errors.New("too many wildcards and variables")
)

func compilePattern(text string, mode patternMode) (pattern, error) {
	p := pattern{text: text}
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			p.tokens = append(p.tokens, token{kind: literalToken, text: literal.String()})
			literal.Reset()
		}
	}
	for i := 0; i < len(text); {
		if len(p.tokens) > maxPatternTokens {
			return p, errTooManyParts
		}
		switch c := text[i]; {
		case (c == '*' || c == '?') && mode.wildcards:
			flush()
			var width int
			p.tokens, width = appendWildcards(p.tokens, text[i:], mode)
			i += width
		case c == '$' && mode.variables && strings.HasPrefix(text[i:], "${"):
			v, width, err := parseVariable(text[i:])
			if err != nil {
				return p, err
			}
			if v.kind == literalToken {
				literal.WriteString(v.text)
			} else {
				flush()
				p.tokens = append(p.tokens, v)
			}
			i += width
		default:
			literal.WriteByte(c)
			i++
		}
	}
	flush()
	if len(p.tokens) > maxPatternTokens {
		return p, errTooManyParts
	}
	p.prepare()
	return p, nil
}

// appendWildcards appends the tokens of the wildcards at the start of text, and returns how many
// there are.
func appendWildcards(tokens []token, text string, mode patternMode) (_ []token, width int) {
	marks := int32(0)
	for ; width < len(text) && (text[width] == '*' || text[width] == '?'); width++ {
		if text[width] == '?' {
			marks++
		}
	}
	// *? means the same as ?*. With the ? first, a star's run can only end where the
	// next literal begins.
	if marks > 0 {
		kind := oneToken
		if mode.segments {
			kind = oneInSegment
		}
		tokens = append(tokens, token{kind: kind, count: marks})
	}
	if int(marks) < width {
		kind := anyToken
		if mode.segments && (text[width-1] == '?' || width < len(text) && text[width] != ':') {
			kind = anyInSegment
		}
		tokens = append(tokens, token{kind: kind})
	}
	return tokens, width
}

// prepare computes the shortcuts for matching.
func (p *pattern) prepare() {
	p.literal, p.least = "", 0
	for i := range p.tokens {
		switch t := &p.tokens[i]; t.kind {
		case literalToken:
			p.least += len(t.text)
		case oneToken, oneInSegment:
			p.least += int(t.count)
		}
	}
	p.plain = len(p.tokens) == 0 || len(p.tokens) == 1 && p.tokens[0].kind == literalToken
	for i := len(p.tokens) - 1; i > 0; i-- {
		if p.tokens[i].kind == literalToken {
			p.literal = p.tokens[i].text
			return
		}
	}
}

// parseVariable reads the variable at the start of s: ${key}, ${key, 'default'}
// or one of the literals ${*}, ${?} and ${$}.
//
// It stops at the first character that cannot be part of a variable, so each character
// of a long run is read once.
func parseVariable(s string) (t token, width int, err error) {
	if len(s) > 3 && s[3] == '}' && strings.IndexByte("*?$", s[2]) >= 0 {
		return token{kind: literalToken, text: s[2:3]}, 4, nil
	}
	end := strings.IndexAny(s[2:], " \t\r\n'\"{}$*?,")
	if end < 0 {
		return t, 0, errVariableOpen
	}
	name, rest := s[2:2+end], s[2+end:]
	hasDefault := rest[0] == ','
	if name == "" || rest[0] != '}' && !hasDefault {
		return t, 0, errVariableName
	}
	value := ""
	if hasDefault {
		// The default value may contain a brace.
		quoted, found := strings.CutPrefix(strings.TrimLeft(rest[1:], " "), "'")
		if found {
			value, rest, found = strings.Cut(quoted, "'")
		}
		rest = strings.TrimLeft(rest, " ")
		switch {
		case !found:
			return t, 0, errVariableQuote
		case rest == "":
			return t, 0, errVariableOpen
		case rest[0] != '}':
			return t, 0, errVariableQuote
		}
	}
	key := lowerKey(name)
	v := &variable{key: key, hash: hashKey(key), name: name, hasDefault: hasDefault}
	return token{kind: variableToken, text: value, variable: v}, len(s) - len(rest) + 1, nil
}

// resolve returns the value of a variable: the value of its key, if the context has exactly one,
// or the default.
func (t *token) resolve(ctx *Context) (string, bool) {
	if v := ctx.lookup(t.variable.key, t.variable.hash); v != nil && !v.list {
		return v.one[0], true
	}
	return t.text, t.variable.hasDefault
}

// match compares the whole of s. A variable without a value matches nothing.
func (p *pattern) match(s string, ctx *Context, fold bool, w *work) bool {
	if p.plain && !fold {
		return len(p.tokens) == 0 && s == "" || len(p.tokens) == 1 && s == p.tokens[0].text
	}
	if len(s) < p.least || w.spent() {
		return false
	}
	w.add(1 + len(s)>>6)
	// Most texts that do not match lack the pattern's last literal.
	if p.literal != "" && !fold && !strings.Contains(s, p.literal) {
		return false
	}
	return glob(p.tokens, s, ctx, fold, w)
}

// glob matches tokens against s without recursion or allocation. To backtrack, it remembers two
// stars: the last * that may cross colons and, if a * that may not cross colons follows it, the
// last of those. One of each kind is enough. The shortest match for an earlier * of the same
// kind leaves all choices to the later one, and a * that stays in its segment has no choice left
// once a later token has matched a colon.
//
// When a star takes one more character, the tokens matched after the star are tried again. These
// tokens count in w, and so do long texts: there can be as many steps as the tokens times the
// length of s, and a caller may have written both. Once w is used up, the result has no meaning.
func glob(tokens []token, s string, ctx *Context, fold bool, w *work) bool {
	const none = -1
	ti, si := 0, 0
	wide, wideAt, narrow, narrowAt := none, 0, none, 0 // the star's token, and where its run ends
	for {
		ok := false
		if ti == len(tokens) {
			if si == len(s) {
				return true
			}
		} else {
			switch t := &tokens[ti]; t.kind {
			case literalToken:
				w.add(len(t.text) >> 6)
				if ok = hasPrefix(s[si:], t.text, fold); ok {
					si += len(t.text)
				}
			case variableToken:
				text, has := t.resolve(ctx)
				if !has {
					return false
				}
				w.add(ctx.lookupWork() + len(text)>>6)
				if fold {
					w.add(len(text) >> 2)
				}
				if ok = hasPrefix(s[si:], text, fold); ok {
					si += len(text)
				}
			case anyToken:
				if ti == len(tokens)-1 {
					return true
				}
				wide, narrow = ti, none
				if wideAt, ok = skip(tokens, ti, s, si, fold); !ok {
					return false
				}
				si = wideAt
			case anyInSegment:
				narrow, narrowAt, ok = ti, si, true
			case oneToken, oneInSegment:
				var width int
				width, ok = marked(s[si:], t)
				w.add(width >> 2)
				si += width
			}
		}
		if ok {
			ti++
			continue
		}
		if w.spent() {
			return false
		}
		// The token does not match here, so the last star takes one more character.
		switch {
		case narrow != none && narrowAt < len(s) && s[narrowAt] != ':':
			w.add(1 + ti - narrow)
			from := narrowAt + runeWidth(s[narrowAt:])
			if narrowAt, ok = skip(tokens, narrow, s, from, fold); !ok {
				return false // then an earlier star has no place for the literal either
			}
			w.add((narrowAt - from) >> 6)
			if strings.IndexByte(s[from:narrowAt], ':') >= 0 {
				// The star cannot reach the next literal without leaving its segment.
				narrowAt = len(s)
				continue
			}
			ti, si = narrow+1, narrowAt
		case wide != none && wideAt < len(s):
			w.add(1 + ti - wide)
			if wideAt, ok = skip(tokens, wide, s, wideAt+runeWidth(s[wideAt:]), fold); !ok {
				return false
			}
			ti, si, narrow = wide+1, wideAt, none
		default:
			return false
		}
	}
}

// marked returns the width of the characters that a run of ? takes. If ok is false, it is the
// width up to the failure.
func marked(s string, t *token) (width int, ok bool) {
	for range t.count {
		if width == len(s) || t.kind == oneInSegment && s[width] == ':' {
			return width, false
		}
		width += runeWidth(s[width:])
	}
	return width, true
}

// skip returns the first place where a star's run may end: the beginning of the next literal.
func skip(tokens []token, star int, s string, from int, fold bool) (at int, ok bool) {
	if star+1 == len(tokens) || tokens[star+1].kind != literalToken || fold {
		return from, true
	}
	i := strings.Index(s[from:], tokens[star+1].text)
	return from + i, i >= 0
}

func runeWidth(s string) int {
	if s[0] < utf8.RuneSelf {
		return 1
	}
	_, width := utf8.DecodeRuneInString(s)
	return width
}

func hasPrefix(s, prefix string, fold bool) bool {
	if len(s) < len(prefix) {
		return false
	}
	if !fold {
		return s[:len(prefix)] == prefix
	}
	return equalFold(s[:len(prefix)], prefix)
}

// equalFold compares two texts of equal length in bytes, ignoring the case of letters
// that a policy can contain (U+0041 to U+00FE). Unlike Unicode folding it never equates
// a character outside that range with one inside (the Kelvin sign is not a k).
func equalFold(a, b string) bool {
	for i := range len(a) {
		x, y := a[i], b[i]
		if x == y {
			continue
		}
		if i > 0 && a[i-1] == 0xC3 && b[i-1] == 0xC3 {
			x, y = lowerLatin(x), lowerLatin(y)
		} else {
			x, y = lowerASCII(x), lowerASCII(y)
		}
		if x != y {
			return false
		}
	}
	return true
}

func lowerASCII(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// lowerLatin lowers the second byte of U+00C0 to U+00DE in UTF-8, which begin
// with C3; D7 is the multiplication sign.
func lowerLatin(c byte) byte {
	if c >= 0x80 && c <= 0x9E && c != 0x97 {
		return c + 0x20
	}
	return c
}

// variables calls f for each policy variable.
func (p *pattern) variables(f func(*variable)) {
	for i := range p.tokens {
		if v := p.tokens[i].variable; v != nil {
			f(v)
		}
	}
}
