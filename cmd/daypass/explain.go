package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/quote"
)

func newExplainCommand(env environment) *cobra.Command {
	o := explainOptions{duration: duration(15 * time.Minute)}
	cmd := &cobra.Command{
		Use:   "explain --principal ARN --db-user USER",
		Short: "Explain which policy statements decide a call for a credential",
		Long: `Makes every decision that a call of GetClusterCredentials needs, from the configuration
file alone: no server has to run, and no credential is issued. For each decision it
names the deciding statement by file, policy, Sid or index, and line. For a refusal it
also lists the statements that nearly allow it, and changes of the call that would
help (each is tried). Then comes a statement that would allow exactly this and nothing
more, unless it would weaken a requirement of the policies, or policy lint would warn
of it. Finally it reports whether the API accepts the parameters.

The principal is the ARN of an IAM user, an IAM role or a role session, or the
name of an IAM user. The exit code is 1 if the call would be refused, and 2 if the
question could not be answered.`,
		Example: `  daypass explain --principal ana --db-user alice --db-name dev --groups analysts
  daypass explain --principal arn:aws:sts::123456789012:assumed-role/etl/nightly --with-iam`,
		Args: noWords,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := config.LoadNames(o.config)
			err = noSuchConfig(o.config, err)
			if err != nil {
				return err
			}
			return explain(env.stdout, cfg.Directory, o, env.now())
		},
	}
	flags := cmd.Flags()
	registerConfig(flags, &o.config)
	flags.StringVar(&o.principal, "principal", "", "the caller: an `ARN`, or the name of an IAM user")
	flags.StringVar(&o.cluster, "cluster", "", "the cluster (default the only one)")
	alias(flags, "cluster-identifier", flags.Lookup("cluster").Value)
	flags.StringVar(&o.dbUser, "db-user", "", "the database user")
	flags.StringVar(&o.dbName, "db-name", "", "the database (default any)")
	registerGroups(flags, &o.groups, "database groups to join, such as `A,B`")
	flags.BoolVar(&o.autoCreate, "auto-create", false, "create the database user if it does not exist")
	flags.Var(&o.duration, "duration", "how long the password works, 15m to 60m")
	alias(flags, "duration-seconds", &o.duration)
	flags.BoolVar(&o.withIAM, "with-iam", false, "explain GetClusterCredentialsWithIAM")
	flags.StringVar(&o.sourceIP, "source-ip", "127.0.0.1", "the `ADDRESS` the call would come from")
	flags.BoolVar(&o.secure, "secure-transport", false, "the call would come over TLS")
	flags.BoolVar(&o.mfa, "mfa", false, "the IAM user would call with a session of get-session-token and MFA")
	flags.StringVar(&o.at, "at", "", "the `TIME` of the call, such as 2026-01-02T15:04:05Z (default now)")
	flags.StringVar(&o.output, "output", "text", "text or json")
	return cmd
}

type explainOptions struct {
	config, principal, cluster, dbUser, dbName string
	groups                                     groupList
	autoCreate, withIAM, secure, mfa           bool
	duration                                   duration
	sourceIP, at, output                       string
}

// explanation is what --output json prints.
type explanation struct {
	Principal string      `json:"principal"`
	Allowed   bool        `json:"allowed"`
	Checks    []explained `json:"checks"`
	// Refusal is an error that the API returns even if the caller has all permissions.
	Refusal *refusal `json:"refusal,omitempty"`
}

type refusal struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// explained is the result of one check.
type explained struct {
	Action    string `json:"action"`
	Resource  string `json:"resource"`
	Decision  string `json:"decision"` // allowed, explicitDeny, implicitDeny
	Layer     string `json:"layer"`
	Policy    string `json:"policy,omitempty"`
	Statement string `json:"statement,omitempty"` // Sid or index
	Line      int    `json:"line,omitempty"`
	// NearMisses are statements that nearly allow it. Try lists changes of the call. Add is a
	// statement that would allow it.
	NearMisses []string        `json:"nearMisses,omitempty"`
	Try        []string        `json:"try,omitempty"`
	Add        json.RawMessage `json:"add,omitempty"`
	Note       string          `json:"note,omitempty"`
}

func explain(w io.Writer, d *directory.Directory, o explainOptions, now time.Time) error {
	input, err := o.input(d, now)
	if err != nil {
		return &exitError{code: 2, err: err}
	}
	outcome, err := api.Explain(d, input)
	if err != nil {
		return &exitError{code: 2, err: err}
	}
	answer := explanation{Principal: input.Principal, Allowed: outcome.Allowed(), Checks: make([]explained, len(outcome.Checks))}
	advice := adviser{d, input, outcome}
	for i, check := range outcome.Checks {
		answer.Checks[i] = describe(check)
		advice.advise(&answer.Checks[i], i)
	}
	if r := outcome.Refusal; r != nil {
		answer.Refusal = &refusal{r.Code, r.Message}
	}
	if o.output == "json" {
		err = writeIndented(w, answer)
	} else {
		err = answer.print(w)
	}
	if err == nil && !answer.Allowed {
		return &exitError{code: 1}
	}
	return err
}

func (o *explainOptions) input(d *directory.Directory, now time.Time) (api.ExplainInput, error) {
	in := api.ExplainInput{Principal: o.principal, Secure: o.secure, MFA: o.mfa, Now: now, Parameters: url.Values{}}
	if err := checkOutput(o.output, "text"); err != nil {
		return in, err
	}
	if o.principal == "" {
		return in, usageErrorf("--principal is required: an ARN, or the name of an IAM user")
	}
	if !strings.HasPrefix(o.principal, "arn:") {
		user, ok := d.User(o.principal)
		if !ok {
			return in, usageErrorf("--principal: there is no IAM user %q in the configuration: check the name, under iam.users; an IAM role is named by its ARN", o.principal)
		}
		in.Principal = user.ARN
	}
	var err error
	if in.Source, err = netip.ParseAddr(o.sourceIP); err != nil {
		return in, usageErrorf("--source-ip: %w", err)
	}
	if o.at != "" {
		if in.Now, err = time.Parse(time.RFC3339, o.at); err != nil {
			return in, usageErrorf("--at %s: must be a time such as 2026-01-02T15:04:05Z", o.at)
		}
	}
	if o.cluster == "" {
		if clusters := d.Clusters(); len(clusters) == 1 {
			o.cluster = clusters[0].Identifier
		} else {
			return in, usageErrorf("--cluster is required: the configuration has %d clusters", len(clusters))
		}
	}
	set := func(name, value string) {
		if value != "" {
			in.Parameters.Set(name, value)
		}
	}
	in.Parameters.Set("Version", "2012-12-01")
	in.Parameters.Set("Action", "GetClusterCredentials")
	set("ClusterIdentifier", o.cluster)
	set("DbName", o.dbName)
	set("DurationSeconds", strconv.FormatInt(int64(time.Duration(o.duration)/time.Second), 10))
	if o.withIAM {
		in.Parameters.Set("Action", "GetClusterCredentialsWithIAM")
		return in, nil
	}
	if o.dbUser == "" {
		return in, usageErrorf("--db-user is required (or --with-iam)")
	}
	set("DbUser", o.dbUser)
	if o.autoCreate {
		set("AutoCreate", "true")
	}
	for i, group := range o.groups {
		set("DbGroups.DbGroup."+strconv.Itoa(i+1), group)
	}
	return in, nil
}

func describe(check api.Explanation) explained {
	decision := check.Decision
	e := explained{
		Action:   check.Action,
		Resource: check.Resource,
		Decision: decision.Effect.String(),
		Layer:    decision.Layer.String(),
		Policy:   decision.Policy,
		Line:     decision.Line,
	}
	if decision.Policy != "" {
		e.Statement = decision.Sid
		if e.Statement == "" {
			e.Statement = "Statement[" + strconv.Itoa(decision.Index) + "]"
		}
	}
	return e
}

func (x *explanation) print(w io.Writer) error {
	var b strings.Builder
	verdict := paint(w, quote.Green, "would be ALLOWED")
	if !x.Allowed {
		verdict = paint(w, quote.Red, "would be REFUSED")
	}
	fmt.Fprintf(&b, "The call by %s %s.\n", quote.Terminal(x.Principal), verdict)
	for _, e := range x.Checks {
		fmt.Fprintf(&b, "\n%s\n  on       %s\n  decision %s", e.Action, quote.Terminal(e.Resource), e.Decision)
		if e.Policy != "" {
			fmt.Fprintf(&b, ", by %s of %s, line %d (%s)", quote.Terminal(e.Statement), quote.Terminal(e.Policy), e.Line, e.Layer)
		} else {
			fmt.Fprintf(&b, ": no statement of the %s allows it", e.Layer)
		}
		b.WriteByte('\n')
		for _, miss := range e.NearMisses {
			fmt.Fprintf(&b, "  almost   %s\n", quote.Terminal(miss))
		}
		for _, change := range e.Try {
			fmt.Fprintf(&b, "  try      %s\n", quote.Terminal(change))
		}
		if e.Add != nil {
			fmt.Fprintf(&b, "  to add   %s\n", quote.Terminal(string(e.Add)))
		}
		if e.Note != "" {
			fmt.Fprintf(&b, "           %s\n", quote.Terminal(e.Note))
		}
	}
	if r := x.Refusal; r != nil {
		fmt.Fprintf(&b, "\nThe API would refuse it in any case:\n  %s: %s\n", r.Code, quote.Terminal(r.Message))
		if r.Code == clusterNotFound {
			b.WriteString("  Check --cluster: it is the identifier of one of the clusters in the configuration.\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
