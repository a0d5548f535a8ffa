package awscli

import (
	"strings"

	"github.com/daypass/daypass/internal/awscli/jmespath"
	"github.com/daypass/daypass/internal/awscli/pyvalue"
	"github.com/daypass/daypass/internal/awsconfig"
)

type object = pyvalue.Object

// globalOptions are the options of all commands of the AWS CLI, in its order.
var globalOptions = []option{
	{name: "debug", nargs: noValue, value: true,
		doc: "Write what is sent and answered, without the password, to standard error."},
	{name: "endpoint-url",
		doc: "Where the API is: https://HOST[:PORT] of a daypass server. Overrides AWS_ENDPOINT_URL_REDSHIFT, AWS_ENDPOINT_URL and the configuration file. One of them is needed: Amazon is never asked by default."},
	{name: "no-verify-ssl", dest: "verify_ssl", nargs: noValue, value: false,
		doc: "Do not check the certificate of the endpoint."},
	{name: "no-paginate", dest: "paginate", nargs: noValue, value: false,
		doc: "Ask for the first page of results only."},
	{name: "output", choices: []string{"json", "text", "table", "yaml", "yaml-stream", "off"},
		doc: "How to print the answer: json, text, table, yaml, yaml-stream or off. The default is AWS_DEFAULT_OUTPUT, the configuration file's output, json."},
	{name: "query",
		doc: "A JMESPath expression that picks and reshapes what is printed."},
	{name: "profile",
		doc: "The profile of the AWS configuration and credentials files to use."},
	{name: "region",
		doc: "The region of the service. Overrides AWS_REGION, AWS_DEFAULT_REGION and the configuration file."},
	{name: "version", nargs: noValue, value: true,
		doc: "Print the version of this program."},
	{name: "color", choices: []string{"on", "off", "auto"},
		doc: "Colours of --output table: on, off, or auto, which is on for a terminal."},
	{name: "no-sign-request", dest: "sign_request", nargs: noValue, value: false,
		doc: "Do not sign the request, and do not look for credentials."},
	{name: "ca-bundle",
		doc: "A file of CA certificates to check the endpoint's certificate with. Overrides AWS_CA_BUNDLE and the configuration file."},
	{name: "cli-read-timeout",
		doc: "Seconds to wait for an answer; 0 waits for ever. The default is 60."},
	{name: "cli-connect-timeout",
		doc: "Seconds to wait for a connection; 0 waits for ever. The default is 60."},
	{name: "v2-debug", nargs: noValue, value: true, hidden: true},
	{name: "no-cli-pager", nargs: noValue, value: true, later: true,
		doc: "Accepted for the sake of scripts; no pager is ever started."},
	{name: "cli-auto-prompt", nargs: noValue, value: true, later: true, hidden: true},
	{name: "no-cli-auto-prompt", nargs: noValue, value: true, later: true, hidden: true},
	{name: "cli-binary-format", later: true, hidden: true},
	{name: "cli-error-format", later: true, hidden: true},
}

// globals are the values of the global options.
type globals struct {
	debug          bool
	endpointURL    string
	verifyTLS      bool
	paginate       bool
	output         string
	query          *jmespath.Expression
	profile        string
	region         string
	color          string
	sign           bool
	caBundle       string
	readTimeout    int // seconds, 0 for none
	connectTimeout int
}

// defaultTimeout is the AWS CLI's, in seconds, to connect and to read.
const defaultTimeout = 60

func resolveGlobals(parsed arguments) (globals, error) {
	g := globals{
		debug:       parsed.has("debug"),
		endpointURL: parsed.text("endpoint-url"),
		verifyTLS:   !parsed.has("verify_ssl"),
		paginate:    !parsed.has("paginate"),
		output:      parsed.text("output"),
		profile:     parsed.text("profile"),
		region:      parsed.text("region"),
		color:       parsed.text("color"),
		sign:        !parsed.has("sign_request"),
		caBundle:    parsed.text("ca-bundle"),
	}
	if parsed.has("query") {
		query, err := jmespath.Compile(parsed.text("query"))
		if err != nil {
			return g, fail(awsconfig.ExitUsage, "Bad value for --query %s: %v", parsed.text("query"), err)
		}
		g.query = query
	}
	if parsed.has("endpoint-url") {
		if err := awsconfig.CheckScheme(g.endpointURL); err != nil {
			return g, err
		}
	}
	var err error
	if g.readTimeout, err = seconds(parsed, "cli-read-timeout"); err != nil {
		return g, err
	}
	g.connectTimeout, err = seconds(parsed, "cli-connect-timeout")
	return g, err
}

func seconds(parsed arguments, name string) (int, error) {
	if !parsed.has(name) {
		return defaultTimeout, nil
	}
	n, ok := pyvalue.ParseInt(parsed.text(name))
	if !ok {
		return 0, notAnInteger(parsed.text(name))
	}
	if !n.IsInt64() || n.Sign() < 0 || n.Int64() > 1<<31 {
		return 0, fail(awsconfig.ExitUsage, "Bad value for --%s: %s seconds", name, n)
	}
	return int(n.Int64()), nil
}

func notAnInteger(text string) error {
	return fail(awsconfig.ExitUsage, "invalid literal for int() with base 10: %s", pyvalue.Repr(text))
}

// Options that make the others unnecessary.
const (
	inputJSON = "cli-input-json"
	inputYAML = "cli-input-yaml"
	skeleton  = "generate-cli-skeleton"
)

// options returns the options of an operation: one for each parameter, two for a
// boolean one, and the AWS CLI's additions.
func (op *operation) options() []option {
	var all []option
	for _, m := range op.input.members {
		o := option{name: optionName(m.name), required: m.required, doc: op.help.parameters[m.name]}
		switch {
		case m.shape.kind == kindBoolean:
			o.nargs, o.dest, o.value = noValue, o.name, true
			negative := o
			negative.name, negative.value = "no-"+o.name, false
			all = append(all, o, negative)
			continue
		case m.shape.kind == kindList:
			o.nargs = anyValues
		case op.paginated != nil && (m.name == op.paginated.token || m.name == op.paginated.limit):
			o.hidden = true
		}
		all = append(all, o)
	}
	all = append(all, option{name: inputJSON,
		doc: "All parameters at once, as the JSON that --generate-cli-skeleton prints: the text itself, or file://PATH. Options given beside it win, one by one."})
	if op.paginated != nil {
		all = append(all,
			option{name: "starting-token", doc: "Where to go on: the NextToken of an earlier answer that --max-items cut off."},
			option{name: "page-size", integer: true, doc: "How many to ask for in one call. All are printed, whatever it is."},
			option{name: "max-items", integer: true, doc: "How many to print at most. When there are more, the answer has a NextToken."})
	}
	return append(all,
		option{name: inputYAML, later: true,
			doc: "Like --cli-input-json, as the YAML that --generate-cli-skeleton yaml-input prints."},
		option{name: skeleton, nargs: optionalValue, value: "input", choices: []string{"input", "output", "yaml-input"},
			doc: "Print a form of the parameters (input, which is the default, or yaml-input) or of the answer (output) and call nothing. output checks the parameters first."})
}

// optionName turns DbUser into db-user.
func optionName(member string) string {
	var b strings.Builder
	for i, r := range member {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('-')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// liftsRequired reports whether a command line names an option that makes all
// others optional.
func liftsRequired(args []string) bool {
	for i, arg := range args {
		name, value, equals := strings.Cut(arg, "=")
		if !equals && i+1 < len(args) {
			value = args[i+1]
		}
		switch name {
		case "--" + inputJSON, "--" + inputYAML:
			return true
		case "--" + skeleton:
			if value != "output" {
				return true
			}
		}
	}
	return false
}
