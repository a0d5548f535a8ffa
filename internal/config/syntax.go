package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

var (
	syntaxPattern = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)
	keyPattern    = regexp.MustCompile(`^[\s-]*["']?([\w.-]+)["']?\s*:`)
	// starPattern finds a value that begins with *, an alias in YAML. What it makes
	// of one in quotes or in a comment does not matter: it is looked for only when
	// there is an alias that cannot be one.
	starPattern = regexp.MustCompile(`[:\[,-]\s*\*`)
)

// maxSyntaxLines bounds the search for the line of a syntax error, which reads the
// text again and again.
const maxSyntaxLines = 3000

// syntaxError gives the YAML parser's errors the form of all others. The parser
// names the line where what it was in the middle of began, from 0 or from 1, or no
// line. The fault is in the line after the last one up to which the text is YAML;
// where it is within a list or a text of many lines, that is where this begins.
func syntaxError(path string, data []byte, err error) error {
	match := syntaxPattern.FindStringSubmatch(err.Error())
	if match == nil {
		return fmt.Errorf("%s:1: not YAML: %w", path, err)
	}
	line, reason := 1, match[2]
	if n, err := strconv.Atoi(match[1]); err == nil {
		line = n
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	if len(lines) <= maxSyntaxLines {
		line = len(lines)
		for line > 1 && !isYAML(bytes.Join(lines[:line-1], nil)) {
			line--
		}
	}
	if strings.Contains(reason, "alphabetic or numeric character") || strings.HasPrefix(reason, "unknown anchor") {
		for i := line - 1; i < len(lines); i++ {
			if starPattern.Match(lines[i]) {
				line, reason = i+1, reason+`; a value that begins with * needs quotes: "*"`
				break
			}
		}
	}
	key := ""
	if line <= len(lines) {
		if match := keyPattern.FindSubmatch(lines[line-1]); match != nil {
			key = string(match[1]) + ": "
		}
	}
	return fmt.Errorf("%s:%d: %snot YAML: %s", path, line, key, reason)
}

// isYAML reports whether the text has no syntax error.
func isYAML(data []byte) bool {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var node yaml.Node
		if err := decoder.Decode(&node); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}
