package awscli

import (
	"slices"
	"strings"
)

// Complete returns the words that can complete word, the last one of a command line,
// after the words before it. A tab separates a word from its description. files reports
// that a file name is expected.
func Complete(before []string, word string) (words []string, files bool) {
	options := slices.Clone(globalOptions)
	var op *operation
	for _, arg := range before {
		if found := operationByCLIName(arg); found != nil && op == nil {
			op = found
			options = append(op.options(), options...)
		}
	}
	parser := argParser{options: options}
	if len(before) > 0 {
		if o := parser.find(before[len(before)-1]); o != nil && o.nargs != noValue {
			switch {
			case strings.HasPrefix(word, "-"):
			case o.choices != nil:
				return matching(o.choices, word), false
			case o.name == "ca-bundle":
				return nil, true
			default:
				return nil, false
			}
		}
	}
	switch {
	case strings.HasPrefix(word, "-"):
		for _, o := range options {
			if !o.hidden {
				words = append(words, "--"+o.name+"\t"+firstSentence(o.doc))
			}
		}
		return matching(words, word), false
	case op == nil:
		for _, op := range operations() {
			words = append(words, op.cliName+"\t"+op.help.summary)
		}
		words = append(words, "help\thow these commands are used")
		return matching(words, word), false
	case len(before) > 0 && before[len(before)-1] == op.cliName:
		return matching([]string{"help\thow this command is used"}, word), false
	}
	return nil, false
}

func matching(words []string, prefix string) []string {
	var found []string
	for _, word := range words {
		if strings.HasPrefix(word, prefix) {
			found = append(found, word)
		}
	}
	return found
}
