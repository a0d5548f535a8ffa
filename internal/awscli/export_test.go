package awscli

import "github.com/daypass/daypass/internal/awscli/jmespath"

// YAMLText is the printer of the yaml format.
var YAMLText = yamlText

// ParseArguments runs the parser of an operation's options.
func ParseArguments(args []string) (map[string]any, []string, error) {
	p := argParser{program: "daypass", options: append(getClusterCredentials().options(), globalOptions...), positional: &positional{name: "help", optional: true}}
	return p.parse(args)
}

// Decode reads an answer of DescribeClusters.
func Decode(body []byte) (*jmespath.Object, error) {
	return decode(describeClusters(), body, func(s string) (any, error) { return iso8601(s) })
}

// DecodeError reads the answer of a call that failed.
var DecodeError = decodeError
