package awscli

import (
	"context"
	"fmt"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
	"github.com/daypass/daypass/internal/awsconfig"
)

// YAMLText is the printer of the yaml format.
var YAMLText = yamlText

func operationParser() *argParser {
	return &argParser{program: "daypass", options: append(getClusterCredentials().options(), globalOptions...), positional: &positional{name: "help", optional: true}}
}

// ParseArguments runs the parser of an operation's options.
func ParseArguments(args []string) (map[string]any, []string, error) {
	return operationParser().parse(args)
}

// SpellArguments writes what ParseArguments returned as a command line again, with every
// name in full and in the order of the options.
func SpellArguments(parsed map[string]any) []string {
	p := operationParser()
	var args []string
	spelled := map[string]bool{}
	for i := range p.options {
		o := &p.options[i]
		value, given := parsed[o.destination()]
		if !given || spelled[o.destination()] {
			continue
		}
		values, several := value.([]string)
		text, single := value.(string)
		switch {
		case o.nargs == anyValues && several && len(values) == 1:
			args = append(args, "--"+o.name+"="+values[0])
		case o.nargs == anyValues && several:
			args = append(append(args, "--"+o.name), values...)
		case o.nargs == noValue || o.nargs == optionalValue && value == o.value:
			if value != o.value {
				continue // the other option of the same destination
			}
			args = append(args, "--"+o.name)
		case single:
			args = append(args, "--"+o.name+"="+text)
		}
		spelled[o.destination()] = true
	}
	if word, ok := parsed[p.positional.name]; ok {
		args = append(args, "--", word.(string))
	}
	return args
}

// Decode reads an answer of DescribeClusters, with timestamps in a format of
// cli_timestamp_format.
func Decode(body []byte, timestamps string) (*pyvalue.Object, error) {
	format, err := timestampFormat(timestamps)
	if err != nil {
		return nil, err
	}
	return decode(describeClusters(), body, format)
}

// DecodeError reads the answer of a call that failed.
var DecodeError = decodeError

// NewClient makes the client without a command line.
var NewClient = newClient

// CallByName calls an operation by the name that the API gives it and returns the members of its
// answer, in the order of the model. An error of the service wraps an *awsconfig.APIError.
func CallByName(c *client, ctx context.Context, name string, params *object) (*object, error) {
	for _, op := range operations() {
		if op.name != name {
			continue
		}
		answer, err := c.call(ctx, op, params)
		if err != nil {
			return nil, awsconfig.Explain(err)
		}
		return answer, nil
	}
	return nil, fmt.Errorf("calling %s: no such operation", name)
}
