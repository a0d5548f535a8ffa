package quote

import (
	"bytes"
	"crypto/rand"
	"io"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Terminal writes a value for one line of a terminal or a table. Letters, marks,
// digits, punctuation, symbols and the space stay as they are. Everything else is
// escaped as in JSON, \u001b and the like: control characters (C0, DEL and C1),
// which move the cursor and run terminals' commands; line ends; format characters,
// which change the direction of text or are invisible; letters and marks that are
// invisible; and code points that are not characters. A byte that is not UTF-8
// becomes \x9b and the like.
func Terminal(value string) string { return terminal(value, "") }

// TerminalText is Terminal for text that has lines: line ends and tabs stay.
func TerminalText(text string) string { return terminal(text, "\n\t") }

// Page is TerminalText for a page of HTML. Its line ends become line feeds, as browsers read them.
// Text that strangers chose, such as the name of a program, can then neither reverse the text that
// follows it nor hide anything.
func Page(html []byte) []byte {
	text := strings.ReplaceAll(string(html), "\r\n", "\n")
	return []byte(TerminalText(strings.ReplaceAll(text, "\r", "\n")))
}

func terminal(text, keep string) string {
	safe := true
	for _, r := range text {
		// The replacement character is printable, and may stand for a bad byte.
		if r == utf8.RuneError || !kept(r, keep) {
			safe = false
			break
		}
	}
	if safe {
		return text
	}
	return string(appendTerminal(make([]byte, 0, len(text)+16), text, keep))
}

func kept(r rune, keep string) bool {
	if r < utf8.RuneSelf {
		if strings.IndexByte(keep, byte(r)) >= 0 {
			return true
		}
	}
	return strconv.IsPrint(r) && (r < utf8.RuneSelf || !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector))
}

func appendTerminal(to []byte, text, keep string) []byte {
	const hex = "0123456789abcdef"
	escape := func(r rune) {
		to = append(to, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
	}
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			to = append(to, '\\', 'x', hex[text[i]>>4], hex[text[i]&15])
		case kept(r, keep):
			to = append(to, text[i:i+size]...)
		case r >= 0x10000:
			r -= 0x10000
			escape(0xd800 + r>>10)
			escape(0xdc00 + r&0x3ff)
		default:
			escape(r)
		}
		i += size
	}
	return to
}

// Writer writes to a terminal: it passes text to w as TerminalText returns it. JSON keeps its
// value. A character may be split between two calls. Writer is safe for concurrent use.
type Writer struct {
	mu   sync.Mutex // guards w and rest
	w    io.Writer
	rest []byte // the beginning of a character, at most three bytes
	// key is the prefix of the styles in Paint's results. It is random, so that other text
	// cannot contain a style. Empty without colours.
	key string
}

// NewWriter returns a Writer to w that knows no colours.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// NewPainter returns a Writer to w that lets Paint's colours through.
func NewPainter(w io.Writer) *Writer { return &Writer{w: w, key: "\x1b" + rand.Text()} }

// Style is how Paint shows a text.
type Style string

// The styles, as parameters of SGR (ECMA-48).
const (
	Bold       Style = "1"
	Red        Style = "31"
	Green      Style = "32"
	Yellow     Style = "33"
	plainStyle Style = "0"
)

// Paint returns a text as Terminal does, in a style that the Writer recognizes. Write the result
// in one piece. Without colours it is the plain text.
func (w *Writer) Paint(style Style, text string) string {
	text = Terminal(text)
	if w.key == "" || text == "" {
		return text
	}
	return w.key + string(style) + "m" + text + w.key + string(plainStyle) + "m"
}

// Write writes all of p, but for the beginning of a character at its end, which the
// next call completes.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := append(w.rest, p...)
	whole := len(text)
	for i := 1; i < utf8.UTFMax && i <= len(text); i++ {
		if utf8.RuneStart(text[len(text)-i]) {
			if !utf8.FullRune(text[len(text)-i:]) {
				whole -= i
			}
			break
		}
	}
	w.rest = bytes.Clone(text[whole:])
	if _, err := w.w.Write(w.quoted(string(text[:whole]))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// quoted is text as TerminalText has it, with the styles that Paint made.
func (w *Writer) quoted(text string) []byte {
	var to []byte
	for w.key != "" {
		before, after, found := strings.Cut(text, w.key)
		if !found {
			break
		}
		to = appendTerminal(to, before, "\n\t")
		for _, style := range []Style{plainStyle, Bold, Red, Green, Yellow} {
			if rest, ok := strings.CutPrefix(after, string(style)+"m"); ok {
				to, after = append(to, "\x1b["+style+"m"...), rest
				break
			}
		}
		text = after
	}
	return appendTerminal(to, text, "\n\t")
}
