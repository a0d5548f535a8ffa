package awscli

import (
	"fmt"
	"io"
	"strings"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
)

// inputSkeleton returns an operation's parameters with placeholder values.
func inputSkeleton(s *shape) any {
	switch s.kind {
	case kindStructure:
		o := new(object)
		for _, m := range s.members {
			o.Set(m.name, inputSkeleton(m.shape))
		}
		return o
	case kindList:
		return []any{inputSkeleton(s.element)}
	case kindInteger:
		return pyvalue.Int(0)
	case kindDouble:
		return 0.0
	case kindBoolean:
		return true
	}
	return ""
}

func printInputSkeleton(w io.Writer, op *operation) error {
	_, err := fmt.Fprintln(w, pyvalue.JSON(inputSkeleton(op.input), 4, true))
	return err
}

// printYAMLSkeleton prints the skeleton as YAML, with the meaning of each parameter.
func printYAMLSkeleton(w io.Writer, op *operation) error {
	var b strings.Builder
	for i, m := range op.input.members {
		value, below := "", ""
		switch m.shape.kind {
		case kindList:
			below = "- ''\n"
		case kindInteger:
			value = " 0"
		case kindBoolean:
			value = " true"
		default:
			value = " ''"
		}
		// Version 2 of the AWS CLI sets the first comment one space further off.
		space := " "
		if i == 0 {
			space = "  "
		}
		note := firstSentence(op.help.parameters[m.name])
		if m.required {
			note = "[REQUIRED] " + note
		}
		fmt.Fprintf(&b, "%s:%s%s# %s\n%s", m.name, value, space, note, below)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func firstSentence(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	if i := strings.Index(text, ". "); i >= 0 {
		return text[:i+1]
	}
	return text
}

// outputSkeleton returns a made-up answer: every string is the name of its member.
func outputSkeleton(op *operation) *object {
	return sample(op.output, "").(*object)
}

func sample(s *shape, name string) any {
	switch s.kind {
	case kindStructure:
		o := new(object)
		for _, m := range s.members {
			o.Set(m.name, sample(m.shape, m.name))
		}
		return o
	case kindList:
		return []any{sample(s.element, s.element.name)}
	case kindInteger:
		return pyvalue.Int(0)
	case kindDouble:
		return 0.0
	case kindBoolean:
		return true
	case kindTimestamp:
		return pyvalue.Time{Date: "1970-01-01", Clock: "00:00:00"}
	}
	return name
}
