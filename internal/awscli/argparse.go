package awscli

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
)

// nargs is how many values an option takes.
type nargs int

const (
	oneValue nargs = iota
	noValue
	optionalValue
	anyValues
)

// option is one option of a command line, by its name without the dashes.
type option struct {
	name    string
	dest    string // key of the value in arguments; empty: the name
	nargs   nargs
	value   any // the meaning of the option without a value
	choices []string
	integer bool
	// required options must be given, unless the whole input comes from
	// elsewhere.
	required bool
	// later: the option is new in version 2 of the AWS CLI. An abbreviation that version 1
	// accepts never means this option.
	later bool
	// hidden options work but are not shown.
	hidden bool
	doc    string
}

func (o *option) destination() string {
	if o.dest != "" {
		return o.dest
	}
	return o.name
}

// positional is the argument of a parser that is not an option.
type positional struct {
	name     string
	choices  []string // nil for any
	optional bool
}

// argParser parses a command line as the AWS CLI's parsers do. The AWS CLI runs three
// of them in turn: each takes its own options, wherever they are, and leaves the rest
// to the next. Options may be abbreviated if that is not ambiguous, and the last one
// wins.
type argParser struct {
	program         string
	options         []option
	positional      *positional
	nothingRequired bool
}

// arguments are the values of a parsed command line, by destination: string,
// []string, or bool.
type arguments map[string]any

func (a arguments) has(name string) bool { _, ok := a[name]; return ok }

// text returns the value of an option with one value, or "".
func (a arguments) text(name string) string {
	s, _ := a[name].(string)
	return s
}

// word is one word of the command line: an option, known or not, or a value.
type word struct {
	isOption bool
	option   *option // nil when the parser does not know it
	name     string  // as it was written
	explicit *string // after an equals sign
}

var negativeNumber = regexp.MustCompile(`^-\d+$|^-\d*\.\d+$`)

func (p *argParser) find(name string) *option {
	for i := range p.options {
		if "--"+p.options[i].name == name {
			return &p.options[i]
		}
	}
	return nil
}

// classify decides what a word is, without its neighbours.
func (p *argParser) classify(arg string) (word, error) {
	if !strings.HasPrefix(arg, "-") || arg == "-" {
		return word{}, nil
	}
	if o := p.find(arg); o != nil {
		return word{isOption: true, option: o, name: arg}, nil
	}
	name, value, equals := strings.Cut(arg, "=")
	var explicit *string
	if equals {
		explicit = &value
		if o := p.find(name); o != nil {
			return word{isOption: true, option: o, name: name, explicit: explicit}, nil
		}
	}
	if strings.HasPrefix(name, "--") {
		matches := p.abbreviated(name)
		if len(matches) > 1 {
			names := make([]string, len(matches))
			for i, o := range matches {
				names[i] = "--" + o.name
			}
			return word{}, p.error("ambiguous option: %s could match %s", arg, strings.Join(names, ", "))
		}
		if len(matches) == 1 {
			return word{isOption: true, option: matches[0], name: "--" + matches[0].name, explicit: explicit}, nil
		}
	}
	if negativeNumber.MatchString(arg) || strings.Contains(arg, " ") {
		return word{}, nil
	}
	return word{isOption: true, name: arg}, nil
}

func (p *argParser) abbreviated(name string) []*option {
	var matches []*option
	for i := range p.options {
		if o := &p.options[i]; !o.later && strings.HasPrefix("--"+o.name, name) {
			matches = append(matches, o)
		}
	}
	return matches
}

func (p *argParser) error(format string, args ...any) error {
	return usageError("%s: error: %s", p.program, fmt.Sprintf(format, args...))
}

func (p *argParser) optionError(o *option, format string, args ...any) error {
	return p.error("argument --%s: %s", o.name, fmt.Sprintf(format, args...))
}

// parse returns the values of the options and of the positional, and the words that it
// does not know, in order.
func (p *argParser) parse(args []string) (arguments, []string, error) {
	words := make([]word, len(args))
	literal := len(args) // index from which every word is a value
	lastOption := -1
	for i, arg := range args {
		if arg == "--" {
			literal = i
			break
		}
		w, err := p.classify(arg)
		if err != nil {
			return nil, nil, err
		}
		words[i] = w
		if w.isOption {
			lastOption = i
		}
	}
	isValue := func(i int) bool {
		return i < len(args) && i != literal && !words[i].isOption
	}

	parsed := arguments{}
	var rest []string
	taken := p.positional == nil
	takePositional := func(at int) (int, error) {
		if taken {
			return at, nil
		}
		from := at
		if at == literal {
			at++
		}
		if at >= len(args) || words[at].isOption {
			if p.positional.optional {
				taken = true
				return min(at, len(args)), nil
			}
			return from, nil
		}
		taken = true
		if err := p.checkChoice(p.positional.name, p.positional.choices, args[at]); err != nil {
			return at, err
		}
		parsed[p.positional.name] = args[at]
		return at + 1, nil
	}

	at := 0
	for at <= lastOption {
		next := at
		for !words[next].isOption {
			next++
		}
		if at != next {
			end, err := takePositional(at)
			if err != nil {
				return nil, nil, err
			}
			if end > at {
				at = end
				continue
			}
			rest = append(rest, args[at:next]...)
			at = next
		}
		w := words[at]
		if w.option == nil {
			rest = append(rest, args[at])
			at++
			continue
		}
		end, err := p.take(parsed, w, args, at+1, isValue)
		if err != nil {
			return nil, nil, err
		}
		at = end
	}
	end, err := takePositional(at)
	if err != nil {
		return nil, nil, err
	}
	rest = append(rest, args[end:]...)
	return parsed, rest, p.checkRequired(parsed, taken)
}

// take reads the values of an option, which begin at from, and returns where
// they end.
func (p *argParser) take(parsed arguments, w word, args []string, from int, isValue func(int) bool) (int, error) {
	o := w.option
	var values []string
	end := from
	if w.explicit != nil {
		if o.nargs == noValue {
			return 0, p.optionError(o, "ignored explicit argument %s", pyvalue.Repr(*w.explicit))
		}
		values = []string{*w.explicit}
	} else {
		limit := map[nargs]int{oneValue: 1, noValue: 0, optionalValue: 1, anyValues: len(args)}[o.nargs]
		for len(values) < limit && isValue(end) {
			values = append(values, args[end])
			end++
		}
	}
	for _, value := range values {
		if _, ok := pyvalue.ParseInt(value); o.integer && !ok {
			return 0, p.optionError(o, "invalid int value: %s", pyvalue.Repr(value))
		}
		if err := p.checkChoice("--"+o.name, o.choices, value); err != nil {
			return 0, err
		}
	}
	switch {
	case o.nargs == anyValues:
		parsed[o.destination()] = append([]string{}, values...)
	case len(values) == 1:
		parsed[o.destination()] = values[0]
	case o.nargs == oneValue:
		return 0, p.optionError(o, "expected one argument")
	default:
		parsed[o.destination()] = o.value
	}
	return end, nil
}

func (p *argParser) checkRequired(parsed arguments, positionalTaken bool) error {
	var missing []string
	for _, o := range p.options {
		if o.required && !p.nothingRequired && !parsed.has(o.destination()) {
			missing = append(missing, "--"+o.name)
		}
	}
	if p.positional != nil && !positionalTaken && !p.positional.optional {
		missing = append(missing, p.positional.name)
	}
	if len(missing) > 0 {
		return p.error("the following arguments are required: %s", strings.Join(missing, ", "))
	}
	return nil
}

func (p *argParser) checkChoice(name string, choices []string, value string) error {
	if choices == nil || slices.Contains(choices, value) {
		return nil
	}
	var b strings.Builder
	b.WriteString("Invalid choice, valid choices are:\n")
	for i := 0; i < len(choices); i += 2 {
		b.WriteByte('\n')
		for j, choice := range choices[i:min(i+2, len(choices))] {
			if j > 0 {
				b.WriteString(" | ")
			}
			fmt.Fprintf(&b, "%-40s", choice)
		}
	}
	var close []string
	for _, choice := range choices {
		if distance(value, choice)*5 <= len(choice) {
			close = append(close, "  * "+choice)
		}
	}
	if len(close) > 0 {
		fmt.Fprintf(&b, "\n\n\nInvalid choice: %s, maybe you meant:\n\n%s", pyvalue.Repr(value), strings.Join(close, "\n"))
	}
	return p.error("argument %s: %s", name, b.String())
}

// distance returns the number of insertions, deletions and replacements between two
// words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal = row[j+1]
			row[j+1] = cost
		}
	}
	return row[len(b)]
}
