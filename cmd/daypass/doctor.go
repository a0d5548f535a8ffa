package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/redshift"
	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/awsconfig"
	"github.com/daypass/daypass/internal/doctor"
	"github.com/daypass/daypass/internal/quote"
)

// packagedConfig is the path of the configuration in the Linux packages.
const packagedConfig = "/etc/daypass/daypass.yaml"

type doctorOptions struct {
	env                environment
	path, output       string
	showNames, offline bool
	sslRootCert        string
	api                callerFlags
}

func newDoctorCommand(env environment) *cobra.Command {
	o := doctorOptions{env: env}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find problems of an installation, and how to fix them",
		Long: `Checks an installation and prints each problem with its fix. Nothing is
changed.

On the server's machine (there is a daypass.yaml here or in /etc/daypass, or --config
names one): configuration, files and disk, clock, keys and servers, certificates, the
registry of revocations, the endpoint, sign-in, and each cluster, as "daypass cluster
check" does.

Anywhere else, or with --profile or --endpoint-url: the AWS configuration, the
endpoint and its certificate, the clock, the access key, the gateway and its
certificate, psql.

The output can be pasted into an issue: secrets are never printed, and account
numbers, host names, addresses, cluster identifiers and directories are masked unless
--show-names is given. Read it all the same before you publish it.

The exit code is 0 if there are no errors (warnings do not count), 1 if there are, and
2 if the command line is wrong.`,
		Example: `  daypass doctor
  daypass doctor --config /etc/daypass/daypass.yaml
  daypass doctor --profile daypass --output json`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(o.output, "text"); err != nil {
				return err
			}
			given := cmd.Flags().Changed
			asPerson := given("profile") || given("endpoint-url") || given("region") || given("ca-bundle") || given("sslrootcert")
			if asPerson && given("config") {
				return usageErrorf("--config looks at a server, --profile and --endpoint-url at a person's access: give one of them")
			}
			return o.run(cmd.Context(), asPerson, given("config"))
		},
	}
	registerConfig(cmd.Flags(), &o.path)
	o.api.register(cmd.Flags(), redshiftEndpoint)
	cmd.Flags().StringVar(&o.sslRootCert, "sslrootcert", "", "`FILE` of the CA that the gateway's certificate is checked with (default DAYPASS_SSLROOTCERT, PGSSLROOTCERT or what libpq finds)")
	cmd.Flags().BoolVar(&o.offline, "skip-clusters", false, "do not connect to the databases")
	cmd.Flags().BoolVar(&o.showNames, "show-names", false, "print account numbers, host names, addresses, cluster identifiers and directories as they are")
	cmd.Flags().StringVar(&o.output, "output", "text", "text or json")
	completeWith(cmd, "output", "text", "json")
	return cmd
}

func (o *doctorOptions) run(ctx context.Context, asPerson, configGiven bool) error {
	if !configGiven && !exists(o.path) {
		o.path = packagedConfig
		asPerson = asPerson || !exists(o.path)
	}
	b := readBuild()
	w := o.env.report(o.output)
	mask := &doctor.Mask{ShowNames: o.showNames}
	report := doctor.NewReport(mask, func(f doctor.Finding) {
		if o.output == "text" {
			o.print(f)
		}
	})
	if o.output == "text" {
		if err := b.print(w, false); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	built := time.Time{}
	if b.Date != nil {
		built = *b.Date
	}
	if asPerson {
		(&doctor.Person{Now: o.env.now, Built: built, Find: o.find, CAFile: o.gatewayCA()}).Run(ctx, mask, report)
	} else {
		operator := &doctor.Operator{Config: o.path, Getenv: os.LookupEnv, Now: o.env.now, Built: built, Check: checkCluster, SkipClusters: o.offline}
		operator.Learn(mask)
		operator.Run(ctx, report)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if o.output == "json" {
		if err := writeIndented(w, struct {
			Version  string           `json:"version"`
			Commit   string           `json:"commit,omitempty"`
			Platform string           `json:"platform"`
			Go       string           `json:"go"`
			Findings []doctor.Finding `json:"findings"`
		}{b.Version, b.Commit, b.Platform, b.Go, report.Findings}); err != nil {
			return err
		}
	} else {
		o.summary(report)
	}
	if report.Failed() {
		return &exitError{code: 1}
	}
	return nil
}

func (o *doctorOptions) print(f doctor.Finding) {
	w := o.env.stdout
	word := fmt.Sprintf("%-8s", f.Severity)
	switch f.Severity {
	case doctor.Error:
		word = paint(w, quote.Red, word)
	case doctor.Warning:
		word = paint(w, quote.Yellow, word)
	}
	fmt.Fprintf(w, "%s %s: %s\n", word, f.About, belowFinding(f.Message))
	if f.Do != "" {
		fmt.Fprintf(w, "         %s\n", belowFinding(f.Do))
	}
}

// belowFinding indents the lines of a text after the first one, so that none looks like a finding of
// its own.
func belowFinding(text string) string {
	lines := strings.Split(quote.TerminalText(text), "\n")
	for i := 1; i < len(lines); i++ {
		lines[i] = strings.TrimRight("         "+lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func (o *doctorOptions) summary(report *doctor.Report) {
	count := map[doctor.Severity]int{}
	for _, f := range report.Findings {
		count[f.Severity]++
	}
	fmt.Fprintf(o.env.stdout, "\n%s, %s\n", plural(count[doctor.Error], "error"), plural(count[doctor.Warning], "warning"))
}

// find finds out how a person calls the API, as connect does, but signs no one in: doctor changes nothing.
func (o *doctorOptions) find(ctx context.Context) (doctor.Access, error) {
	found, err := o.api.load(ctx, o.env, "redshift")
	if err != nil {
		return doctor.Access{}, err
	}
	if needsSignIn(ctx, found) {
		return doctor.Access{}, fmt.Errorf("profile %q: no one is signed in: run `daypass login --profile %s`", found.Profile.Name, found.Profile.Name)
	}
	client := redshift.NewFromConfig(found.SDK, func(options *redshift.Options) { options.BaseEndpoint = aws.String(found.Endpoint) })
	return doctor.Access{
		Endpoint: found.Endpoint, Plaintext: awsconfig.Plaintext(found.Endpoint), Credentials: found.SDK.Credentials, HTTP: found.SDK.HTTPClient,
		Call: func(ctx context.Context) ([]doctor.Cluster, error) {
			answer, err := client.DescribeClusters(ctx, &redshift.DescribeClustersInput{})
			if err != nil {
				return nil, awsconfig.Explain(err)
			}
			var clusters []doctor.Cluster
			for _, c := range answer.Clusters {
				if c.Endpoint != nil {
					clusters = append(clusters, doctor.Cluster{Identifier: aws.ToString(c.ClusterIdentifier), Host: aws.ToString(c.Endpoint.Address), Port: int(aws.ToInt32(c.Endpoint.Port))})
				}
			}
			return clusters, nil
		},
		Allowed: func(err error) bool {
			refused, ok := errors.AsType[*awsconfig.APIError](err)
			return ok && refused.Code == "AccessDenied"
		},
	}, nil
}

// gatewayCA returns the CA file that connect verifies the gateway with, or "" for the system's
// authorities.
func (o *doctorOptions) gatewayCA() string {
	file := cmp.Or(o.sslRootCert, os.Getenv("DAYPASS_SSLROOTCERT"), os.Getenv("PGSSLROOTCERT"))
	if file == systemCA {
		return ""
	}
	return cmp.Or(file, defaultRootCert())
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
