package devserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/quote"
)

// printPaste prints commands to paste into another terminal. Each works in any directory,
// with any AWS settings, and in every shell like sh. There are no comments between them,
// because an interactive zsh would run them as commands.
func (d *dev) printPaste() error {
	daypass := d.opts.Command
	aws, note := d.askCommand("aws"), ""
	if _, err := exec.LookPath("aws"); err != nil {
		aws, note = d.askCommand(daypass), " (the AWS CLI is not installed here; daypass has the same command)"
	}
	psql, psqlNote := "psql", ""
	if _, err := exec.LookPath("psql"); err != nil {
		psqlNote = " (psql is not installed here: it is in the PostgreSQL client package)"
		if own := filepath.Join(d.server.Installation().BinDir, "psql"); isFile(own) {
			psql, psqlNote = quote.MustShell(own), ""
		}
	}
	conninfo, err := d.conninfo("IAM:alice")
	if err != nil {
		return err
	}
	config, credentials, err := d.dirs.writeProfiles(d.endpointURL(), map[string]directory.AccessKey{exampleIAMUser: d.key, exampleOperator: d.operatorKey})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(d.opts.Stdout, `
In another terminal, be the IAM user %[1]s:

  unset AWS_PROFILE AWS_DEFAULT_PROFILE AWS_SESSION_TOKEN AWS_SECURITY_TOKEN AWS_CREDENTIAL_EXPIRATION
  export AWS_ACCESS_KEY_ID=%[2]s
  export AWS_SECRET_ACCESS_KEY=%[3]s
  export AWS_DEFAULT_REGION=%[4]s AWS_REGION=%[4]s AWS_ENDPOINT_URL=%[5]s
  export AWS_CONFIG_FILE=%[15]s AWS_SHARED_CREDENTIALS_FILE=%[16]s

Ask for a credential of the database user alice in the group analysts%[6]s:

  %[7]s

Log on with one%[8]s:

  PGPASSWORD=$(%[7]s --query DbPassword --output text) %[9]s %[10]s

Do both in one step:

  %[11]s

Be refused, and ask why. The second command tells for any call what is missing:

  %[12]s
  %[19]s

Be the operator, who sees sessions and takes credentials back (both IAM users are
profiles of AWS_CONFIG_FILE):

  %[17]s sessions --profile %[18]s
  %[17]s revoke --db-user alice --profile %[18]s
  %[17]s revoke list --profile %[18]s

Sign in at the browser as Ana or Bob, who have no access key (docs/people.md). The
page lets Ana choose between two IAM roles:

  %[17]s login --endpoint-url %[5]s --region %[4]s --profile person
  %[17]s whoami --profile person

Or open the console, %[5]s/console/, in a browser.
Bob's IAM role may also see and end sessions there.

Look at SELECT current_user, session_user, at the tables sales and events, and at
what changes without the group. The policies are in %[13]s;
which statement decided is in the audit log, %[14]s.
Ctrl-C here stops everything.
`,
		exampleIAMUser, d.key.ID, d.key.Secret.Reveal(), exampleRegion, d.endpointURL(),
		note, aws, psqlNote, psql, quote.MustShell(conninfo), d.connectCommand(daypass, psql),
		strings.Replace(aws, "--db-groups analysts", "--db-groups finance", 1),
		filepath.Join(d.dirs.root, "daypass.yaml"), filepath.Join(d.dirs.server, "audit"),
		quote.MustShell(config), quote.MustShell(credentials), daypass, exampleOperator,
		fmt.Sprintf("%s explain --config %s --principal %s --db-user alice --db-name %s --groups finance", daypass,
			quote.MustShell(filepath.Join(d.dirs.root, "daypass.yaml")), exampleIAMUser, exampleDatabase))
	return err
}

// askCommand returns the command that requests alice's credential.
func (d *dev) askCommand(program string) string {
	return fmt.Sprintf("%s redshift get-cluster-credentials --endpoint-url %s --cluster-identifier %s --db-name %s --db-user alice --db-groups analysts",
		program, d.endpointURL(), exampleCluster, exampleDatabase)
}

func (d *dev) connectCommand(daypass, psql string) string {
	command := fmt.Sprintf("%s connect %s %s --endpoint-url %s --sslrootcert %s --user alice --groups analysts",
		daypass, exampleCluster, exampleDatabase, d.endpointURL(), quote.MustShell(d.caFile))
	if psql != "psql" {
		command += " --psql " + psql
	}
	return command
}

// conninfo returns a connection string for the gateway. The certificate is verified for the
// name localhost. The address is given too, in case another server listens on localhost's
// IPv6 address.
func (d *dev) conninfo(user string) (string, error) {
	ca, err := quote.Conninfo(d.caFile)
	return fmt.Sprintf("host=localhost hostaddr=127.0.0.1 port=%d dbname=%s user=%s sslmode=verify-full sslrootcert=%s",
		d.gatewayPort(), exampleDatabase, user, ca), err
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
