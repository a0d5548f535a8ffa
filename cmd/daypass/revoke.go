package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/client"
	"github.com/daypass/daypass/internal/quote"
)

// revokeOptions are the options of the revoke command.
type revokeOptions struct {
	caller       callerFlags
	selector     client.Selector
	issuedBefore string
	output       string
}

func newRevokeCommand(env environment) *cobra.Command {
	var o revokeOptions
	cmd := &cobra.Command{
		Use:   "revoke --credential-id ID | --principal ARN | --db-user USER [--cluster CLUSTER] | --cluster CLUSTER | --all",
		Short: "Revoke database credentials, and end the sessions they opened",
		Long: `Revokes the credentials that were issued until now, or until --issued-before. Within a
second every gateway refuses logons with them, and within five seconds the sessions
that they opened end. Credentials that are issued later are not affected, so remove
the permission in the policies first.

--credential-id revokes one credential; "daypass credential inspect", the audit
log and "daypass sessions" show its identifier. --principal is the ARN of an IAM
user, an IAM role (all its sessions) or one role session. --db-user is the plain
database user, as in the column USER of "daypass sessions", without the prefix IAM: or
IAMA: of a logon and without groups; it covers all sets of groups. IAM:ana and IAMR:etl
are the identities of get-cluster-credentials-with-iam. If the user or principal is not
known, the command warns and still revokes; a cluster that is not configured is an
error. A revocation may be repeated safely, and cannot be undone. The caller needs
daypass:RevokeCredentials.`,
		Example: `  daypass revoke --principal arn:aws:iam::123456789012:user/ana
  daypass revoke --db-user alice --cluster examplecluster
  daypass revoke --all --issued-before 2026-01-02T15:04:05Z
  daypass revoke list`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), env) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.selector.CredentialID, "credential-id", "", "one credential")
	flags.StringVar(&o.selector.Principal, "principal", "", "all credentials of one caller: ARN of an IAM user, an IAM role or a role session")
	flags.StringVar(&o.selector.DBUser, "db-user", "", "all credentials for a database user, as in the column USER of \"daypass sessions\", of --cluster or of all clusters")
	flags.StringVar(&o.selector.Cluster, "cluster", "", "all credentials for a cluster")
	flags.BoolVar(&o.selector.All, "all", false, "all credentials")
	flags.StringVar(&o.issuedBefore, "issued-before", "", "only credentials issued before this time: 2026-01-02T15:04:05Z (default now)")
	flags.StringVar(&o.output, "output", "text", "text or json")
	completeWith(cmd, "output", "text", "json")
	o.caller.register(flags, daypassEndpoint)
	cmd.AddCommand(newRevokeListCommand(env))
	return cmd
}

// check checks the options before the first call.
func (o *revokeOptions) check(now time.Time) error {
	s := &o.selector
	given := 0
	for _, one := range []bool{s.CredentialID != "", s.Principal != "", s.DBUser != "", s.DBUser == "" && s.Cluster != "", s.All} {
		if one {
			given++
		}
	}
	if given != 1 {
		return usageErrorf("give one of --credential-id, --principal, --db-user, --cluster and --all; --cluster may go with --db-user")
	}
	if err := checkDBUser(s.DBUser); err != nil {
		return err
	}
	if o.issuedBefore != "" {
		at, err := time.Parse(time.RFC3339, o.issuedBefore)
		if err != nil {
			return usageErrorf("--issued-before %s: must be a time such as %s", o.issuedBefore, now.UTC().Format(time.RFC3339))
		}
		s.IssuedBefore = at
	}
	return checkOutput(o.output, "text")
}

func (o *revokeOptions) run(ctx context.Context, env environment) error {
	if err := o.check(env.now()); err != nil {
		return err
	}
	api, err := o.caller.client(ctx, env)
	if err != nil {
		return err
	}
	revoked, err := api.Revoke(ctx, o.selector)
	if err != nil {
		return callFailed(err)
	}
	for _, warning := range revoked.Warnings {
		fmt.Fprintf(env.stderr, "daypass: warning: %s\n", quote.Terminal(warning))
	}
	if o.output == "json" {
		return writeIndented(env.stdout, revoked)
	}
	fmt.Fprintf(env.stdout, "Revoked: %s. Sessions being ended: %d.\n", quote.Terminal(describeRevocation(revoked.Revocation)), revoked.Sessions)
	if name, ok := strings.CutPrefix(o.selector.DBUser, "IAM:"); ok {
		fmt.Fprintf(env.stderr, "%s is the identity of get-cluster-credentials-with-iam; for the database user give --db-user %s\n", quote.Terminal(o.selector.DBUser), quote.Terminal(name))
	}
	return nil
}

// describeRevocation describes a revocation in words.
func describeRevocation(r client.Revocation) string {
	what := "all credentials"
	switch {
	case r.CredentialID != "":
		what = "credential " + r.CredentialID
	case r.Principal != "":
		what = "credentials of " + r.Principal
	case r.DBUser != "" && r.Cluster != "":
		what = fmt.Sprintf("credentials for %s of %s", r.DBUser, r.Cluster)
	case r.DBUser != "":
		what = fmt.Sprintf("credentials for %s of any cluster", r.DBUser)
	case r.Cluster != "":
		what = "credentials for " + r.Cluster
	}
	if r.IssuedBefore != nil {
		what += " issued before " + r.IssuedBefore.UTC().Format(time.RFC3339)
	}
	return what
}

func newRevokeListCommand(env environment) *cobra.Command {
	var caller callerFlags
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the revocations in force",
		Example: `  daypass revoke list
  daypass revoke list --output json`,
		Long: `Lists the revocations of the last hours. Older ones are forgotten, because the
credentials have expired by then. The audit log has all of them. The caller needs
daypass:ListRevocations.`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table"); err != nil {
				return err
			}
			api, err := caller.client(cmd.Context(), env)
			if err != nil {
				return err
			}
			list, err := api.Revocations(cmd.Context())
			if err != nil {
				return callFailed(err)
			}
			if output == "json" {
				return writeIndented(env.stdout, struct{ Revocations []client.Revocation }{list})
			}
			var t table
			t.add("REVOKED AT", "WHAT", "BY", "REMEMBERED UNTIL")
			for _, r := range list {
				t.add(r.RevokedAt.UTC().Format(time.RFC3339), describeRevocation(r), r.RevokedBy, r.ExpiresAt.UTC().Format(time.RFC3339))
			}
			return t.write(env.stdout, env.columns)
		},
	}
	cmd.Flags().StringVar(&output, "output", "table", "table or json")
	completeWith(cmd, "output", "table", "json")
	caller.register(cmd.Flags(), daypassEndpoint)
	return cmd
}
