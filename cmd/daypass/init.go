package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/quote"
)

func newInitCommand(env environment) *cobra.Command {
	o := initOptions{env: env}
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a first configuration, and make an access key",
		Long: `Writes a configuration file with comments and an access key for its first IAM user,
in a file of its own. "daypass serve" works with both unchanged. Existing files are not
changed.

The user may issue credentials for the database user of the same name, see and
end sessions, and revoke what was issued. The cluster is a PostgreSQL on this
machine; comments in the file explain how to use another one.

If root runs the command, the files get the group of their directory, for the account that the
server runs as: /etc/daypass of the packages belongs to the group daypass.`,
		Example: `  daypass init
  daypass init --config /etc/daypass/daypass.yaml --data /var/lib/daypass
  daypass init --user ana --account 210987654321 --region eu-central-1`,
		Args: noWords,
		RunE: func(*cobra.Command, []string) error { return o.run() },
	}
	registerConfig(cmd.Flags(), &o.path)
	cmd.Flags().StringVar(&o.data, "data", "./daypass-data", "the `DIRECTORY` for keys, certificates and the audit log")
	cmd.Flags().StringVar(&o.user, "user", "admin", "`NAME` of the IAM user")
	cmd.Flags().StringVar(&o.account, "account", "123456789012", "the account `NUMBER`, 12 digits, in every ARN")
	cmd.Flags().StringVar(&o.region, "region", "us-east-1", "the `REGION` that requests are signed for")
	return cmd
}

type initOptions struct {
	env                               environment
	path, data, user, account, region string
}

func (o *initOptions) run() error {
	key := directory.NewAccessKey()
	secret := o.user + ".secret"
	text := strings.NewReplacer("<account>", config.Quote(o.account), "<region>", config.Quote(o.region), "<user>", config.Quote(o.user),
		"<data>", config.Quote(o.data), "<key>", key.ID, "<secret>", config.Quote(secret), "<partition>", iam.PartitionOf(o.region), "<number>", o.account, "<place>", o.region).Replace(initialConfiguration)
	// The flags are checked as the server checks them, before anything is written.
	within := func(string) (string, bool) { return "", false }
	if _, err := config.Parse(o.path, []byte(strings.Replace(text, "secret_file: "+config.Quote(secret), "secret: "+config.Quote(key.Secret.Reveal()), 1)), within); err != nil {
		return usageErrorf("%w", err)
	}
	secretPath := filepath.Join(filepath.Dir(o.path), secret)
	file, err := quote.Shell(o.path)
	if err != nil {
		return usageErrorf("--config: %w", err)
	}
	secretFile, err := quote.Shell(secretPath)
	if err != nil {
		return usageErrorf("--config: %w", err)
	}
	if err := writeNew(secretPath, key.Secret.Reveal()+"\n"); err != nil {
		return err
	}
	if err := writeNew(o.path, text); err != nil {
		return errors.Join(err, os.Remove(secretPath))
	}
	_, err = fmt.Fprintf(o.env.stdout, `Wrote %s and the secret access key, %s.

Start the server:

    daypass serve --config %s

Make a profile for the AWS CLI, the SDKs and daypass's own commands:

    aws configure set aws_access_key_id %s --profile daypass
    aws configure set aws_secret_access_key "$(cat %s)" --profile daypass
    aws configure set region %s --profile daypass
    aws configure set endpoint_url http://127.0.0.1:8440 --profile daypass

Try it:

    daypass sessions --profile daypass

For logons, tell the file about your PostgreSQL (clusters), then run:

    daypass cluster check --all --config %s
`, o.path, secretPath, file, key.ID, secretFile, o.region, file)
	return err
}

// writeNew writes a private file that must not exist yet.
func writeNew(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists already: move it away, or name another file with --config", path)
	}
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	if err == nil {
		err = lendToGroup(file)
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return err
}

const initialConfiguration = `# The configuration of Daypass. docs/configuration.md has every key; "daypass config check" finds faults, and
# "daypass config schema" makes editors know the keys. The server reads the file again when it changes.
account: <account>          # the account part of every ARN: 12 digits in quotes
region: <region>                 # what requests are signed for
data: <data>              # keys, certificates, audit log; made when it is missing. Back it up like a secret

api:                                # the AWS-compatible endpoint (AWS_ENDPOINT_URL)
  listen: 127.0.0.1:8440            # an address that others reach needs tls
  # tls: {certificate: api.crt, key: api.key}

gateway:                            # where people log on, with any PostgreSQL client
  listen: 127.0.0.1:5439
  # tls: {certificate: gateway.crt, key: gateway.key}   # left out: a certificate is made; clients need tls/ca.crt from data
  # advertise: {host: db.example.com, port: 5439}

# admin: {listen: "127.0.0.1:9440"}   # metrics and readiness

clusters:
  - identifier: examplecluster      # the ClusterIdentifier of calls
    database: postgres              # the default database
    # The administrative login makes database users and session roles. To make it:
    #     CREATE ROLE daypass LOGIN CREATEROLE PASSWORD '…';
    # "daypass cluster check examplecluster" says what it lacks.
    upstream: postgres://daypass@127.0.0.1:5432/postgres?sslmode=disable     # elsewhere: ?sslmode=verify-full
    # upstream_password_file: upstream.password                              # or upstream_password_env

iam:
  groups:
    - name: people                  # each may log on as the database user of their own name
      policies:
        - Version: "2012-10-17"
          Statement:
            - Effect: Allow
              Action: [redshift:GetClusterCredentials, redshift:CreateClusterUser]
              Resource: "arn:<partition>:redshift:<place>:<number>:dbuser:examplecluster/${aws:username}"
            - Effect: Allow
              Action: redshift:GetClusterCredentials
              Resource: "arn:<partition>:redshift:<place>:<number>:dbname:examplecluster/*"
            - Effect: Allow
              Action: redshift:DescribeClusters
              Resource: "arn:<partition>:redshift:<place>:<number>:cluster:examplecluster"
    - name: operators               # these look after it: daypass sessions, daypass revoke
      policies:
        - Version: "2012-10-17"
          Statement: [{Effect: Allow, Action: "daypass:*", Resource: "*"}]
  users:
    - name: <user>
      access_keys:
        - {id: <key>, secret_file: <secret>}
      groups: [people, operators]
`
