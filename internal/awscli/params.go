package awscli

import (
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"strings"
	"syscall"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
	"github.com/daypass/daypass/internal/awsconfig"
)

// paging are the options that cut a list into pages; nil where not given.
type paging struct {
	startingToken      *string
	pageSize, maxItems *big.Int
}

func (p paging) given() bool { return p.startingToken != nil || p.pageSize != nil || p.maxItems != nil }

// object returns the parameters that the AWS CLI sends for an operation without paging.
func (p paging) object() *object {
	o := new(object)
	if p.startingToken != nil {
		o.Set("StartingToken", *p.startingToken)
	}
	if p.pageSize != nil {
		o.Set("PageSize", p.pageSize)
	}
	if p.maxItems != nil {
		o.Set("MaxItems", p.maxItems)
	}
	return o
}

// buildParams makes the parameters of an operation from its options, and then
// from --cli-input-json or --cli-input-yaml those that no option sets.
func buildParams(op *operation, parsed arguments) (*object, paging, error) {
	params := new(object)
	var pages paging
	for _, m := range op.input.members {
		name := optionName(m.name)
		if !parsed.has(name) {
			continue
		}
		value, err := paramValue(m.shape, "--"+name, parsed[name])
		if err != nil {
			return nil, pages, err
		}
		params.Set(m.name, value)
	}
	if op.paginated != nil {
		if parsed.has("starting-token") {
			token, err := loadText("--starting-token", parsed.text("starting-token"))
			if err != nil {
				return nil, pages, err
			}
			pages.startingToken = &token
		}
		// The parser has checked that these two are numbers.
		if parsed.has("page-size") {
			pages.pageSize, _ = pyvalue.ParseInt(parsed.text("page-size"))
		}
		if parsed.has("max-items") {
			pages.maxItems, _ = pyvalue.ParseInt(parsed.text("max-items"))
		}
	}
	return params, pages, addInput(params, parsed)
}

// addInput adds the content of --cli-input-json or --cli-input-yaml to params.
func addInput(params *object, parsed arguments) error {
	if parsed.has(inputJSON) && parsed.has(inputYAML) {
		return fail(awsconfig.ExitUsage, "Only one --cli-input- parameter may be specified.")
	}
	var input any
	switch {
	case parsed.has(inputJSON):
		text, err := loadText("--"+inputJSON, parsed.text(inputJSON))
		if err != nil {
			return err
		}
		if input, err = pyvalue.ParseJSON(text); err != nil {
			return paramError(inputJSON, "Invalid JSON: %v\nJSON received: %s", err, text)
		}
	case parsed.has(inputYAML):
		text, err := loadText("--"+inputYAML, parsed.text(inputYAML))
		if err != nil {
			return err
		}
		if input, err = parseYAML(text); err != nil {
			return paramError(inputYAML, "Invalid YAML: %v", err)
		}
	default:
		return nil
	}
	given, ok := input.(*object)
	if !ok {
		return fail(awsconfig.ExitUsage, "'%s' object has no attribute 'keys'", pyvalue.TypeName(input))
	}
	for key, value := range given.All() {
		if _, ok := params.Get(key); !ok {
			params.Set(key, value)
		}
	}
	return nil
}

// paramValue makes the value of a parameter from the value of its option.
func paramValue(s *shape, name string, given any) (any, error) {
	switch given := given.(type) {
	case bool:
		return given, nil
	case []string:
		if len(given) == 1 {
			text, isFile, err := loadFile(name, given[0])
			if err != nil {
				return nil, err
			}
			if isFile || strings.HasPrefix(strings.TrimSpace(text), "[") {
				return jsonList(name, text, isFile)
			}
		}
		values := make([]any, 0, len(given))
		for _, value := range given {
			// The AWS CLI sends "a,b" as one name, which is invalid because of the
			// comma. Here it is two names, as in the other commands.
			for name := range strings.SplitSeq(value, ",") {
				values = append(values, name)
			}
		}
		return values, nil
	case string:
		text, err := loadText(name, given)
		if err != nil {
			return nil, err
		}
		if s.kind == kindInteger {
			n, ok := pyvalue.ParseInt(text)
			if !ok {
				return nil, notAnInteger(text)
			}
			return n, nil
		}
		return text, nil
	}
	panic("internal error: awscli: unknown type of argument")
}

func jsonList(name, text string, isFile bool) (any, error) {
	if isFile && !strings.HasPrefix(strings.TrimSpace(text), "[") {
		return nil, paramError(name, `the file must hold a JSON list, like ["a", "b"]`)
	}
	value, err := pyvalue.ParseJSON(text)
	if err != nil {
		return nil, paramError(name, "Invalid JSON: %v\nJSON received: %s", err, text)
	}
	return value, nil
}

func loadText(name, value string) (string, error) {
	text, _, err := loadFile(name, value)
	return text, err
}

// loadFile returns the content of the file that a file:// or fileb:// value names, up
// to the last line break, or else the value itself. As in version 2 of the AWS CLI, a
// URL is only a value, so that a name that looks like one never makes a request.
func loadFile(name, value string) (text string, isFile bool, err error) {
	path, found := strings.CutPrefix(value, "file://")
	if !found {
		if path, found = strings.CutPrefix(value, "fileb://"); !found {
			return value, false, nil
		}
	}
	path = awsconfig.ExpandPath(path)
	data, err := os.ReadFile(path)
	if err != nil {
		return "", true, paramError(name, "Unable to load paramfile %s: %s", value, fileError(err, path))
	}
	asText := strings.HasPrefix(value, "file://")
	if !utf8.Valid(data) {
		advice := "" // no parameter here can take bytes that are not text
		if asText {
			advice = "  If this is a binary file, please use the fileb:// prefix instead of the file:// prefix." // the AWS CLI's words
		}
		return "", true, paramError(name, "Unable to load paramfile (%s), text contents could not be decoded.%s", path, advice)
	}
	text = string(data)
	if asText {
		text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	}
	return text, true, nil
}

// fileError returns an error about a file in Python's form.
func fileError(err error, path string) string {
	quoted := pyvalue.Repr(path)
	number, system := errors.AsType[syscall.Errno](err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "[Errno 2] No such file or directory: " + quoted
	case errors.Is(err, fs.ErrPermission):
		return "[Errno 13] Permission denied: " + quoted
	}
	if text := number.Error(); system && text != "" {
		return fmt.Sprintf("[Errno %d] %s%s: %s", int(number), strings.ToUpper(text[:1]), text[1:], quoted)
	}
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	return fmt.Sprintf("%v: %s", err, quoted)
}

// parseYAML reads a YAML document into ordered values.
func parseYAML(text string) (any, error) {
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		return nil, err
	}
	if document.Kind == 0 {
		return nil, nil
	}
	return yamlValue(&document)
}

func yamlValue(n *yaml.Node) (any, error) {
	switch n.Kind {
	case yaml.DocumentNode:
		return yamlValue(n.Content[0])
	case yaml.SequenceNode:
		values := []any{}
		for _, child := range n.Content {
			value, err := yamlValue(child)
			if err != nil {
				return nil, err
			}
			values = append(values, value)
		}
		return values, nil
	case yaml.MappingNode:
		o := new(object)
		for i := 0; i+1 < len(n.Content); i += 2 {
			value, err := yamlValue(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			o.Set(n.Content[i].Value, value)
		}
		return o, nil
	case yaml.ScalarNode:
		switch n.ShortTag() {
		case "!!null":
			return nil, nil
		case "!!bool":
			var b bool
			err := n.Decode(&b)
			return b, err
		case "!!int":
			if i, ok := new(big.Int).SetString(n.Value, 0); ok {
				return i, nil
			}
		case "!!float":
			var f float64
			err := n.Decode(&f)
			return f, err
		}
		return n.Value, nil
	}
	return nil, fmt.Errorf("line %d: aliases are not supported", n.Line)
}
