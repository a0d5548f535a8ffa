package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/awsconfig"
	"github.com/daypass/daypass/internal/login"
)

func newLogoutCommand(env environment) *cobra.Command {
	var profile string
	cmd := &cobra.Command{
		Use:   "logout",
		Short: "Remove the keys of a sign-in from this machine",
		Long: `Logout removes what "daypass login" or "aws login" has left in the cache. A program
that has read the keys can use them for 15 minutes at most. To end a sign-in that
someone else may have a copy of, ask the operator for "daypass revoke --principal".`,
		Example: `  daypass logout
  daypass logout --profile work`,
		Args: noWords,
		RunE: func(*cobra.Command, []string) error {
			found, err := awsconfig.ReadProfile(profile, os.Getenv)
			if err != nil {
				return callFailed(err)
			}
			session := found.Setting(awsconfig.LoginSession)
			if session == "" {
				return &exitError{awsconfig.ExitConfiguration, fmt.Errorf("profile %q: has no sign-in: see `daypass login --help`", found.Name)}
			}
			cache, err := login.CacheDir(os.Getenv)
			if err != nil {
				return err
			}
			there, err := login.Forget(cache, session)
			switch {
			case err != nil:
				return err
			case there:
				fmt.Fprintf(env.stderr, "Signed out of the profile %s. What has read the keys can use them for 15 minutes at most.\n", found.Name)
			default:
				fmt.Fprintf(env.stderr, "No one was signed in, in the profile %s.\n", found.Name)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&profile, "profile", "", "profile of the AWS configuration")
	return cmd
}

func newWhoamiCommand(env environment) *cobra.Command {
	var api callerFlags
	var output string
	cmd := &cobra.Command{
		Use:   "whoami",
		Short: "Print who you are to the API",
		Long: `Whoami asks the API (GetCallerIdentity, which needs no permission) and prints the ARN
of the IAM user or the role session, and when its keys expire. With --output json it
prints what "aws sts get-caller-identity" prints, and the expiry as KeysUntil.`,
		Example: `  daypass whoami
  daypass whoami --profile work --output json`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "text"); err != nil {
				return err
			}
			return api.call(cmd.Context(), env, "sts", func(found awsconfig.Found) error {
				keys, err := found.SDK.Credentials.Retrieve(cmd.Context())
				if err != nil {
					return err
				}
				client := sts.NewFromConfig(found.SDK, func(o *sts.Options) { o.BaseEndpoint = aws.String(found.Endpoint) })
				answer, err := client.GetCallerIdentity(cmd.Context(), nil)
				if err != nil {
					return awsconfig.Explain(err)
				}
				if output == "json" {
					return writeIdentityJSON(env.stdout, answer, keys)
				}
				text := aws.ToString(answer.Arn)
				if keys.CanExpire {
					text += "\nkeys until " + keys.Expires.Local().Format(time.DateTime) + ", then refreshed while the sign-in lasts"
				}
				_, err = fmt.Fprintln(env.stdout, text)
				return err
			})
		},
	}
	api.register(cmd.Flags(), "AWS_ENDPOINT_URL_STS, AWS_ENDPOINT_URL")
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	completeWith(cmd, "output", "text", "json")
	return cmd
}

func writeIdentityJSON(out io.Writer, answer *sts.GetCallerIdentityOutput, keys aws.Credentials) error {
	identity := struct {
		UserId    string
		Account   string
		Arn       string
		KeysUntil *time.Time `json:",omitempty"`
	}{UserId: aws.ToString(answer.UserId), Account: aws.ToString(answer.Account), Arn: aws.ToString(answer.Arn)}
	if keys.CanExpire {
		until := keys.Expires.UTC().Truncate(time.Second)
		identity.KeysUntil = &until
	}
	return writeIndented(out, identity)
}

func newCredentialProcessCommand(env environment) *cobra.Command {
	var api callerFlags
	cmd := &cobra.Command{
		Use:   "credential-process",
		Short: "Print the keys of a sign-in for SDKs that cannot read it",
		Long: `Credential-process prints the access key of a profile as JSON, for credential_process
in another profile: SDKs that are older than "aws login" run it when they need a key.
It never prompts. When the sign-in has ended it fails: run "daypass login".`,
		Example: `  daypass credential-process --profile work`,
		Args:    noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := api.load(cmd.Context(), env, "sts")
			if err != nil {
				return err
			}
			// A profile whose keys come from a credential_process may name this command, which
			// would then run itself without end.
			if found.Profile.Setting(awsconfig.LoginSession) == "" || found.Profile.Setting("source_profile") != "" {
				return &exitError{awsconfig.ExitConfiguration, fmt.Errorf("profile %q: has no sign-in of its own: name the profile of `daypass login` with --profile", found.Profile.Name)}
			}
			keys, err := found.SDK.Credentials.Retrieve(cmd.Context())
			if awsconfig.NeedsSignIn(found.Profile, err) {
				return &exitError{awsconfig.ExitConfiguration, fmt.Errorf("profile %q: no one is signed in: run `daypass login --profile %s`", found.Profile.Name, found.Profile.Name)}
			}
			if err != nil {
				return callFailed(err)
			}
			answer := struct {
				Version         int
				AccessKeyId     string
				SecretAccessKey string
				SessionToken    string `json:",omitempty"`
				Expiration      string `json:",omitempty"`
			}{Version: 1, AccessKeyId: keys.AccessKeyID, SecretAccessKey: keys.SecretAccessKey, SessionToken: keys.SessionToken}
			if keys.CanExpire {
				answer.Expiration = keys.Expires.UTC().Format(time.RFC3339)
			}
			data, err := json.Marshal(answer)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.exact, "%s\n", data)
			return err
		},
	}
	api.register(cmd.Flags(), "AWS_ENDPOINT_URL_STS, AWS_ENDPOINT_URL")
	return cmd
}
