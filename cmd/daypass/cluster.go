package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/clustercheck"
	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/quote"
)

func newClusterCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Check, prepare and clean up the PostgreSQL clusters",
		Example: `  daypass cluster check examplecluster
  daypass cluster clean --all --dry-run`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newClusterCheckCommand(env))
	cmd.AddCommand(newClusterCleanCommand(env))
	cmd.AddCommand(newClusterCompatCommand(env))
	return cmd
}

func newClusterCheckCommand(env environment) *cobra.Command {
	var path, output string
	var all, sql bool
	cmd := &cobra.Command{
		Use:   "check NAME... | --all",
		Short: "Check whether logons to a cluster will work, and print the fixes",
		Long: `Connects to the cluster with its administrative login and checks everything that
logons need. For errors and warnings it prints the fix: SQL for a superuser, or lines
for pg_hba.conf. --sql also prints long SQL and SQL for notices. The command changes
nothing.

The exit code is 0 if there are no errors, 1 if there are, and 2 if the cluster could
not be checked.`,
		Example: "  daypass cluster check examplecluster\n  daypass cluster check --all --output json",
		RunE: func(cmd *cobra.Command, names []string) error {
			if all == (len(names) > 0) {
				return usageErrorf("name a cluster, or give --all")
			}
			if err := checkOutput(output, "text"); err != nil {
				return err
			}
			c, err := loadConfig(path)
			if err != nil {
				return err
			}
			clusters, err := c.ClustersNamed(names)
			if err != nil {
				return err
			}
			return checkClusters(cmd.Context(), env.report(output), clusters, output, sql)
		},
	}
	registerConfig(cmd.Flags(), &path)
	cmd.Flags().BoolVar(&all, "all", false, "check every cluster of the configuration")
	cmd.Flags().BoolVar(&sql, "sql", false, "print all SQL and all lines of pg_hba.conf")
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	return cmd
}

// checkClusters checks the clusters in order and prints each result as soon as it has
// it. It continues after a cluster that cannot be reached.
func checkClusters(ctx context.Context, w io.Writer, clusters []config.Cluster, output string, sql bool) error {
	reports := []clustercheck.Report{}
	broken := false
	for _, cluster := range clusters {
		report, err := checkCluster(ctx, cluster)
		if err != nil {
			return err
		}
		report.Compare(reports)
		broken = broken || report.Broken()
		reports = append(reports, report)
		if output == "text" {
			printReport(w, report, sql)
		}
	}
	if output == "json" {
		if err := writeIndented(w, struct {
			Clusters []clustercheck.Report `json:"clusters"`
		}{reports}); err != nil {
			return err
		}
	}
	if broken {
		return &exitError{code: 1}
	}
	return nil
}

func checkCluster(ctx context.Context, cluster config.Cluster) (clustercheck.Report, error) {
	admin := handover.New(cluster.Administration())
	defer admin.Close()
	return clustercheck.Check(ctx, admin.Admin)
}

// shortSQL is the largest number of lines of SQL that are printed without --sql.
const shortSQL = 5

// printReport prints findings with their fixes. Long SQL, and SQL for notices, is
// printed with --sql only, because it would bury the errors.
func printReport(w io.Writer, r clustercheck.Report, sql bool) {
	fmt.Fprintf(w, "cluster %s at %s\n\n", r.Cluster, r.Address)
	count, printed, more := map[clustercheck.Severity]int{}, map[string]bool{}, false
	for _, f := range r.Findings {
		count[f.Severity]++
		fmt.Fprintf(w, "  %s %s\n", paintSeverity(w, f.Severity), quote.Terminal(f.Message))
		script := strings.Join(f.SQL, ";\n")
		quiet := f.Severity == clustercheck.Notice && !sql
		switch {
		case len(f.SQL) == 0:
		case quiet || !sql && strings.Count(script, "\n") >= shortSQL:
			more = true
		case printed[script]:
			fmt.Fprintf(w, "           Run the same as above%s.\n", inDatabase(f))
		default:
			printed[script] = true
			which := ""
			if f.Choose {
				which = ", only the ones that you want"
			}
			fmt.Fprintf(w, "           Run as a superuser%s%s:\n\n", inDatabase(f), which)
			for _, statement := range f.SQL {
				fmt.Fprintf(w, "               %s;\n", strings.ReplaceAll(strings.TrimSpace(statement), "\n", "\n               "))
			}
			fmt.Fprintln(w)
		}
		switch {
		case len(f.HBA) == 0:
		case quiet:
			more = true
		default:
			fmt.Fprint(w, "           Put these lines before all others in pg_hba.conf, which still apply to everyone else, and reload:\n\n")
			for _, line := range f.HBA {
				fmt.Fprintf(w, "               %s\n", quote.Terminal(line))
			}
			fmt.Fprintln(w)
		}
	}
	fmt.Fprintf(w, "\n%s, %s, %s\n", plural(count[clustercheck.Broken], "error"), plural(count[clustercheck.Warning], "warning"), plural(count[clustercheck.Notice], "notice"))
	if more {
		fmt.Fprintln(w, "There is more SQL: run this again with --sql to see it.")
	}
}

func inDatabase(f clustercheck.Finding) string {
	if f.Database == "" {
		return ""
	}
	return fmt.Sprintf(", in database %q", f.Database)
}

func paintSeverity(w io.Writer, s clustercheck.Severity) string {
	word := fmt.Sprintf("%-8s", s)
	switch s {
	case clustercheck.Broken:
		return paint(w, quote.Red, word)
	case clustercheck.Warning:
		return paint(w, quote.Yellow, word)
	}
	return word
}
