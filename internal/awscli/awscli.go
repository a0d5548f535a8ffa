// Package awscli is a client of the Amazon Redshift API that is used like the
// AWS CLI: the same options, the same input and output formats, the same
// messages.
//
// Standard output is, byte for byte, what version 1 of the AWS CLI prints; the exit
// codes are those of version 2, which distinguish a wrong command line (252), a missing
// configuration or credential (253), an error of the service (254) and anything else
// (255). Features that only version 2 has (the yaml formats, --cli-input-yaml,
// --no-cli-pager) work as in version 2. There are three operations:
// GetClusterCredentials, GetClusterCredentialsWithIAM and DescribeClusters.
//
// A command line is read as the AWS CLI reads it (argparse.go), made into the
// parameters of an operation (params.go) and checked against its model
// (model.go). The AWS SDK for Go resolves credentials, signs, retries and
// sends (client.go); the answer is decoded by our own model into values that
// keep their order and their text (decode.go), filtered by --query
// (jmespath), and printed (format.go, table.go, yaml.go).
//
// The package reads files that options and the shared AWS configuration name,
// and writes to the two writers it is given; it never prints a secret other
// than the answer that was asked for.
package awscli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/daypass/daypass/internal/awsconfig"
	"github.com/daypass/daypass/internal/quote"
)

// Env has the parts of the process that a command uses.
type Env struct {
	Stdout, Stderr io.Writer
	// Getenv looks up an environment variable. The AWS SDK reads the process's own
	// environment for some settings.
	Getenv func(string) string
	// MFACode asks for a code of an MFA device. Optional.
	MFACode func(ctx context.Context, serial string) (string, error)
	// SignIn is called with the error of a command that has printed nothing yet. It reports whether
	// the person has signed in, so that the command is worth another attempt. Its error is printed
	// below that of the command. Optional.
	SignIn func(context.Context, awsconfig.Found, error) (bool, error)
	// Program is the name of the program in messages and help.
	Program string
	// Version is what --version prints.
	Version string
	// Width is the width of the terminal that Stdout is, or 0 if it is not a terminal.
	Width int
}

func usageError(format string, args ...any) error {
	return &awsconfig.Failure{Code: awsconfig.ExitUsage, Message: fmt.Sprintf(format, args...), Usage: true}
}

func paramError(name, format string, args ...any) error {
	return &awsconfig.Failure{Code: awsconfig.ExitUsage, Message: fmt.Sprintf("Error parsing parameter '%s': %s", name, fmt.Sprintf(format, args...))}
}

func fail(code int, format string, args ...any) error {
	return &awsconfig.Failure{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Run executes the words after "redshift" on a command line, prints the result or the
// error, and returns the exit code of the process.
func Run(ctx context.Context, env Env, args []string) int {
	out := &output{Writer: env.Stdout}
	env.Stdout = out
	c := command{env: env}
	err := c.run(ctx, args)
	var advice error
	if err != nil && c.found != nil && !out.begun && env.SignIn != nil {
		var again bool
		if again, advice = env.SignIn(ctx, *c.found, err); again && advice == nil {
			err = c.run(ctx, args)
		}
	}
	if err == nil {
		return 0
	}
	f := awsconfig.Explain(err)
	if ctx.Err() != nil && f.Code == awsconfig.ExitGeneral {
		return awsconfig.ExitInterrupted
	}
	if f.Usage {
		fmt.Fprintf(env.Stderr, "usage: %s\n%s\n", usageText(env.Program), quote.TerminalText(f.Message))
	} else {
		fmt.Fprintf(env.Stderr, "\n%s\n", quote.TerminalText(f.Message))
	}
	if advice != nil {
		fmt.Fprintf(env.Stderr, "\n%s\n", quote.TerminalText(advice.Error()))
	}
	return f.Code
}

func usageText(program string) string {
	return fmt.Sprintf(`%[1]s redshift [options] <subcommand> [parameters]
To see help text, you can run:

  %[1]s redshift help
  %[1]s redshift <subcommand> help
`, program)
}

// command is one execution of Run.
type command struct {
	env     Env
	globals globals

	found *awsconfig.Found // where the calls go, once it is known
}

// output remembers whether something has been written.
type output struct {
	io.Writer
	begun bool
}

func (o *output) Write(p []byte) (int, error) {
	o.begun = o.begun || len(p) > 0
	return o.Writer.Write(p)
}

func (c *command) run(ctx context.Context, args []string) error {
	main := &argParser{program: c.env.Program, options: globalOptions, positional: &positional{name: "command"}}
	parsed, rest, err := main.parse(append([]string{"redshift"}, args...))
	if err != nil {
		return err
	}
	if parsed.has("version") {
		_, err := fmt.Fprintln(c.env.Stdout, c.env.Version)
		return err
	}
	if c.globals, err = resolveGlobals(parsed); err != nil {
		return err
	}
	if len(rest) > 0 && isHelpOption(rest[0]) {
		rest[0] = "help"
	}
	service := &argParser{program: c.env.Program, positional: &positional{name: "operation", choices: subcommands()}}
	parsed, rest, err = service.parse(rest)
	if err != nil {
		return err
	}
	name := parsed.text("operation")
	if name == "help" {
		return c.printHelp(serviceHelp(c.env.Program))
	}
	return c.runOperation(ctx, operationByCLIName(name), rest)
}

func isHelpOption(s string) bool { return s == "--help" || s == "-h" }

func (c *command) runOperation(ctx context.Context, op *operation, args []string) error {
	if len(args) == 1 && (args[0] == "help" || isHelpOption(args[0])) {
		return c.printHelp(operationHelp(c.env.Program, op))
	}
	options := op.options()
	parser := &argParser{program: c.env.Program, options: options, positional: &positional{name: "help", optional: true}}
	if liftsRequired(args) {
		parser.nothingRequired = true
	}
	parsed, rest, err := parser.parse(args)
	if err != nil {
		return err
	}
	if help := parsed.text("help"); help == "help" {
		return c.printHelp(operationHelp(c.env.Program, op))
	} else if help != "" {
		rest = append(rest, help)
	}
	if len(rest) > 0 {
		return usageError("\nUnknown options: %s", strings.Join(rest, ", "))
	}
	paginate, err := c.pagination(op, parsed)
	if err != nil {
		return err
	}
	params, paging, err := buildParams(op, parsed)
	if err != nil {
		return err
	}
	switch parsed.text("generate-cli-skeleton") {
	case "input":
		return printInputSkeleton(c.env.Stdout, op)
	case "yaml-input":
		return printYAMLSkeleton(c.env.Stdout, op)
	case "output":
		return c.printOutputSkeleton(ctx, op, params, paging)
	}
	client, err := c.newClient(ctx)
	if err != nil {
		return err
	}
	if awsconfig.Plaintext(client.endpoint) {
		// The AWS CLI prints no warning here. On standard error ours does not disturb scripts.
		fmt.Fprintf(c.env.Stderr, "warning: the endpoint %s is on another machine and has no TLS: the password crosses the network in clear text\n", quote.Terminal(client.endpoint))
	}
	form, err := c.outputFormat(client)
	if err != nil {
		return err
	}
	client.printAs(form)
	var answer response
	if paginate {
		answer, err = newPages(op, client, params, paging)
	} else {
		if paging.given() {
			params.Set("PaginationConfig", paging.object())
		}
		answer, err = callOnce(ctx, op, client, params)
	}
	if err != nil {
		return err
	}
	return c.print(ctx, op, form, answer)
}

// printOutputSkeleton checks the parameters and prints a made-up answer, in
// the format that a real one would have.
func (c *command) printOutputSkeleton(ctx context.Context, op *operation, params *object, paging paging) error {
	client, err := c.newClient(ctx)
	if err != nil {
		return err
	}
	form, err := c.outputFormat(client)
	if err != nil {
		return err
	}
	if paging.given() {
		params.Set("PaginationConfig", paging.object())
	}
	if err := validate(params, op.input); err != nil {
		return err
	}
	return c.print(ctx, op, form, &single{value: outputSkeleton(op)})
}
