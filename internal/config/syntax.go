package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

var (
	keyPattern = regexp.MustCompile(`^[\s-]*["']?([\w.-]+)["']?\s*:`)
	// openQuotePattern finds a value with a quote that is not closed on its line.
	openQuotePattern = regexp.MustCompile(`^[\s-]*[\w.-]+:\s+(?:"(?:[^"\\]|\\.)*|'(?:[^']|'')*)$`)
	// starPattern finds a value that begins with *, which is an alias in YAML.
	starPattern = regexp.MustCompile(`[:\[,-]\s*\*`)
)

// syntaxError gives the YAML parser's errors the same form as all other errors. The parser reports
// where it stopped, and where the list, mapping or text that it was reading began. The line to fix
// is where a list or mapping in brackets, or a quoted text, was left open; otherwise it is the line
// where the parser stopped.
func syntaxError(path string, data []byte, err error) error {
	at, ok := errors.AsType[*yaml.LoadError](err)
	if !ok {
		return fmt.Errorf("%s:1: not YAML: %w", path, err)
	}
	lines := bytes.Split(data, []byte("\n"))
	line, reason := at.Mark.Line, at.Message
	switch {
	case at.Stage == yaml.ReaderStage:
		line = firstLine(lines, func(text []byte) bool { return !utf8.Valid(text) })
	case strings.HasPrefix(reason, "unknown anchor"), strings.HasSuffix(at.ContextMsg, "scanning an alias"):
		if line <= len(lines) && starPattern.Match(lines[line-1]) {
			reason += `; a value that begins with * needs quotes: "*"`
		}
	case strings.Contains(at.ContextMsg, "parsing a block"):
		// A text with an open quote continues to the next quote in the file, and the parser
		// stops after that.
		if open := firstLine(lines[:min(line, len(lines))], openQuotePattern.Match); open > 0 {
			line = open
		}
	case at.ContextMark.Line > 0:
		line = at.ContextMark.Line
	}
	line = min(max(line, 1), len(lines))
	key := ""
	if match := keyPattern.FindSubmatch(lines[line-1]); match != nil {
		key = string(match[1]) + ": "
	}
	return fmt.Errorf("%s:%d: %snot YAML: %s", path, line, key, reason)
}

// firstLine returns the number of the first line for which match is true, counted
// from 1, or 0.
func firstLine(lines [][]byte, match func([]byte) bool) int {
	for i, text := range lines {
		if match(text) {
			return i + 1
		}
	}
	return 0
}
