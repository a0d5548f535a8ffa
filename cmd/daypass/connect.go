package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/redshift"
	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/awsconfig"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/quote"
)

// connectOptions are the options of the connect command.
type connectOptions struct {
	cluster, database string
	user              string
	withIAM           bool
	autoCreate        bool
	groups            groupList
	duration          string
	host              string
	port              int
	sslMode           string
	sslRootCert       string
	printAs           string
	psql              string
	psqlArgs          []string
	direct            bool // TLS begins without an SSLRequest; the proxy's alone

	api callerFlags
}

// logon has the values that a PostgreSQL client needs to log on.
type logon struct {
	host        string
	port        int
	database    string
	user        string
	password    keyring.Secret
	sslMode     string
	sslRootCert string
	expiration  time.Time
}

func newConnectCommand(env environment) *cobra.Command {
	var o connectOptions
	cmd := &cobra.Command{
		Use:   "connect CLUSTER [DATABASE] --user USER [flags] [-- PSQL-ARGUMENT...]",
		Short: "Get a credential and start psql with it",
		Long: `Connect gets the cluster's address and a credential from the API, and starts psql.
psql gets the password in its environment, never in an argument or a file. Endpoint
and access key are configured as for every AWS client.

The gateway's certificate is checked (sslmode=verify-full) with the CA in the file of
--sslrootcert, DAYPASS_SSLROOTCERT or PGSSLROOTCERT: data/tls/ca.crt of the gateway,
or "system" for a certificate from a public CA. Without a CA, the certificate of a
gateway at a loopback address is not checked (sslmode=require), and other gateways are
refused. PGSSLMODE can make the check stricter; only --sslmode can make it weaker.
AWS_CA_BUNDLE is for the API only.

With --print the credential is printed for another program, and psql is not
started:

    env      for eval "$(daypass connect ... --print env)" in a shell: exports the logon,
             and unsets variables that would send psql elsewhere
    uri      postgresql://...
    dsn      host=... port=... for libpq and programs that use it
    json     all values, with the time at which the password expires
    pgpass   a line for ~/.pgpass

All forms but env leave the environment as it is: if PGHOSTADDR or PGSERVICE is set,
libpq connects there, whatever host a URI names. The command warns if they are set.`,
		Example: `  daypass connect examplecluster --user alice
  daypass connect examplecluster dev --user alice --auto-create --groups analysts,finance
  daypass connect examplecluster dev --user alice -- -c 'SELECT current_user'
  psycopg=$(daypass connect examplecluster dev --user alice --print dsn)`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				args, o.psqlArgs = args[:dash], args[dash:]
			}
			if len(args) < 1 || len(args) > 2 {
				return usageErrorf("connect: name a cluster and, optionally, a database; arguments for psql follow after --")
			}
			o.cluster = args[0]
			if len(args) == 2 {
				o.database = args[1]
			}
			return o.run(cmd.Context(), env)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       map[string]string{wordsBefore: "2"}, // the cluster and the database
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.user, "user", "u", "", "database user to log on as")
	flags.BoolVar(&o.withIAM, "with-iam", false, "log on as the database user of the caller's own IAM identity, instead of --user")
	flags.BoolVar(&o.autoCreate, "auto-create", false, "create the database user if it does not exist")
	registerGroups(flags, &o.groups, "database groups to join for this session, such as `A,B`")
	alias(flags, "db-user", flags.Lookup("user").Value)
	flags.StringVar(&o.duration, "duration", "", "how long the password works, 15m to 60m (default 15m); open sessions continue")
	flags.StringVar(&o.host, "host", "", "host of the gateway, instead of asking the API for it")
	flags.IntVar(&o.port, "port", 0, "port of the gateway (default from the API, or 5439 with --host)")
	flags.StringVar(&o.sslMode, "sslmode", "", "how the gateway's certificate is checked, as for libpq (default verify-full)")
	flags.StringVar(&o.sslRootCert, "sslrootcert", "", `file of the CA that signed the gateway's certificate, or "system"`)
	flags.StringVar(&o.printAs, "print", "", "print the credential instead: env, uri, dsn, json or pgpass")
	flags.StringVar(&o.psql, "psql", defaultPsql, "the psql program to start")
	o.api.register(flags, redshiftEndpoint)
	completeWith(cmd, "print", printFormats...)
	completeWith(cmd, "sslmode", sslModes...)
	return cmd
}

var printFormats = []string{"env", "uri", "dsn", "json", "pgpass"}

// run checks everything that it can check before it requests a credential.
func (o *connectOptions) run(ctx context.Context, env environment) error {
	seconds, err := o.check()
	if err != nil {
		return &usageError{err}
	}
	program := ""
	if o.printAs == "" {
		if program, err = findPsql(o.psql); err != nil {
			return err
		}
	}
	var to logon
	err = o.api.call(ctx, env, "redshift", func(found awsconfig.Found) error {
		// Check this before the first call, so that a missing access key is not reported as an
		// error of that call.
		if _, err := found.SDK.Credentials.Retrieve(ctx); err != nil {
			return err
		}
		client := redshift.NewFromConfig(found.SDK, func(options *redshift.Options) { options.BaseEndpoint = aws.String(found.Endpoint) })
		to = logon{}
		if err := o.locate(ctx, client, &to); err != nil {
			return err
		}
		note, err := o.secure(&to, os.Getenv)
		if err != nil {
			return &exitError{awsconfig.ExitConfiguration, err}
		}
		if note != "" {
			env.warn("%s", note)
		}
		return o.ask(ctx, client, seconds, &to)
	})
	if err != nil {
		return err
	}
	if o.printAs != "" {
		if warning := to.diverted(o.printAs, os.Getenv); warning != "" {
			env.warn("%s", warning)
		}
		text, err := to.format(o.printAs, os.Getenv)
		if err == nil {
			_, err = fmt.Fprintln(env.stdout, text)
		}
		return err
	}
	return startPsql(program, o.psqlArgs, to.environ(os.Environ(), os.Getenv))
}

// check checks the options. It returns the duration in seconds, or 0 for the default.
func (o *connectOptions) check() (seconds int32, err error) {
	switch {
	case o.user == "" && !o.withIAM:
		return 0, errors.New("no database user: give --user USER, or --with-iam for the user of your own IAM identity")
	case o.withIAM && (o.user != "" || o.autoCreate || len(o.groups) > 0):
		return 0, errors.New("--with-iam takes the user and the groups from your IAM identity: leave out --user, --auto-create and --groups")
	case o.printAs != "" && !slices.Contains(printFormats, o.printAs):
		return 0, fmt.Errorf("--print %s: must be one of %s", o.printAs, strings.Join(printFormats, ", "))
	case o.printAs != "" && len(o.psqlArgs) > 0:
		return 0, errors.New("--print does not start psql: leave out the arguments after --")
	case o.database != "" && len(o.psqlArgs) > 0 && !strings.HasPrefix(o.psqlArgs[0], "-") && o.psqlArgs[0] != o.database:
		return 0, fmt.Errorf("%q after --: psql would take it for the database; leave it out, or use --print env to start another program", o.psqlArgs[0])
	case o.sslMode != "" && !slices.Contains(sslModes, o.sslMode):
		return 0, fmt.Errorf("--sslmode %s: must be one of %s", o.sslMode, strings.Join(sslModes, ", "))
	case o.port < 0 || o.port > 65535:
		return 0, fmt.Errorf("--port %d: must be 1 to 65535", o.port)
	case o.duration == "":
		return 0, nil
	}
	d, err := parseDuration(o.duration)
	switch {
	case err != nil:
		return 0, fmt.Errorf("--duration %s: %w", o.duration, err)
	case d < 15*time.Minute || d > time.Hour || d%time.Second != 0:
		return 0, fmt.Errorf("--duration %s: must be 15m to 60m, in whole seconds", o.duration)
	}
	return int32(d / time.Second), nil
}

// defaultPsql is looked for in PATH.
const defaultPsql = "psql"

// again returns the command line for a shell, with the flags that make DescribeClusters
// unnecessary.
func (o *connectOptions) again() string {
	words := []string{"daypass", "connect", o.cluster, cmp.Or(o.database, "DATABASE"), "--host", cmp.Or(o.host, "HOST"), "--port", strconv.Itoa(cmp.Or(o.port, gatewayPort))}
	for _, flag := range []struct{ name, value string }{
		{"--user", o.user}, {"--groups", strings.Join(o.groups, ",")}, {"--duration", o.duration},
		{"--sslmode", o.sslMode}, {"--sslrootcert", o.sslRootCert}, {"--print", o.printAs},
		{"--endpoint-url", o.api.endpointURL}, {"--region", o.api.region}, {"--profile", o.api.profile}, {"--ca-bundle", o.api.caBundle},
	} {
		if flag.value != "" {
			words = append(words, flag.name, flag.value)
		}
	}
	for _, flag := range []struct {
		name  string
		given bool
	}{{"--with-iam", o.withIAM}, {"--auto-create", o.autoCreate}, {"--no-verify-ssl", o.api.noVerifySSL}, {"--allow-http", o.api.allowHTTP}} {
		if flag.given {
			words = append(words, flag.name)
		}
	}
	if o.psql != defaultPsql {
		words = append(words, "--psql", o.psql)
	}
	if len(o.psqlArgs) > 0 {
		words = append(append(words, "--"), o.psqlArgs...)
	}
	return quote.MustShell(words...)
}
