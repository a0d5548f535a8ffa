package main

import (
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/keyring"
)

func newCredentialCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "credential",
		Short:   "Inspect database credentials",
		Example: `  daypass credential inspect --data ./daypass-data < password`,
		Args:    noWords,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCredentialInspectCommand(env))
	return cmd
}

func newCredentialInspectCommand(env environment) *cobra.Command {
	var from keyringFlags
	cmd := &cobra.Command{
		Use:   "inspect [PASSWORD | -]",
		Short: "Print the content of a password, and whether its signature and times are valid",
		Long: `Reads a password, or the JSON that get-cluster-credentials prints, and prints its
content: the identifier (also in the audit log), cluster, database (null: any), user,
groups, times and principal.

status is valid, expired, not yet valid, forged (the signature is wrong, or made
with a key that the keyring does not have), malformed (not a credential), or
unverified if there is no keyring. Do not trust the content of a credential that is
not valid.

The command calls no server, so a credential that is valid here may be revoked.
"daypass revoke list" lists the revocations.

Without an argument, or with -, the password is read from standard input, which keeps
it out of the process list and the shell's history.

The exit code is 0 for a valid credential, 1 for any other, and 2 if there is no
input or the keyring cannot be opened.`,
		Example: `  daypass redshift get-cluster-credentials --cluster-identifier examplecluster --db-user alice | daypass credential inspect
  daypass credential inspect --data ./daypass-data < password`,
		Args: words(0, 1, "give one password, or - for the standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := readPassword(env.stdin, args)
			if err != nil {
				return err
			}
			var verifier *keyring.Verifier
			if from.given() {
				if verifier, err = from.verifier(cmd.Context(), env); err != nil {
					return err
				}
			}
			found := credential.Inspect(verifier, password.Reveal(), env.now())
			if found.Status == credential.Unverified {
				found.Reason = "no keyring to check the signature with: give --data or --config"
			}
			if err := writeInspection(env.stdout, found); err != nil {
				return err
			}
			if found.Status != credential.Valid {
				return &exitError{code: 1}
			}
			return nil
		},
	}
	from.register(cmd.Flags())
	return cmd
}

// writeInspection prints the result as JSON. Fields that a malformed credential does
// not have are left out.
func writeInspection(out io.Writer, found credential.Inspection) error {
	type grant struct {
		ID         string    `json:"id"`
		Cluster    string    `json:"cluster"`
		Database   *string   `json:"database"`
		User       string    `json:"user"`
		Groups     []string  `json:"groups"`
		AutoCreate bool      `json:"autocreate"`
		LogonName  string    `json:"logon_name"`
		Issued     time.Time `json:"issued"`
		Expires    time.Time `json:"expires"`
		Principal  string    `json:"principal"`
	}
	report := struct {
		Status credential.Status `json:"status"`
		Reason string            `json:"reason,omitempty"`
		// Revocation explains that "valid" does not mean "not revoked".
		Revocation string `json:"revocation,omitempty"`
		*grant
		Key string `json:"key,omitempty"`
	}{Status: found.Status, Reason: found.Reason, Key: found.KeyID}
	if found.Status == credential.Valid {
		report.Revocation = "not known from a credential; daypass revoke list says what is revoked"
	}
	if g := found.Grant; g != nil {
		report.grant = &grant{
			ID: g.ID, Cluster: g.Cluster, User: g.DBUser, Groups: append([]string{}, g.DBGroups...), AutoCreate: g.AutoCreate,
			LogonName: g.LogonName(), Issued: g.IssuedAt, Expires: g.NotAfter, Principal: g.Principal,
		}
		if g.Database != "" {
			report.Database = &g.Database
		}
	}
	return writeIndented(out, report)
}
