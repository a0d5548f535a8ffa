package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/quote"
	"github.com/daypass/daypass/internal/reaper"
)

func newClusterCleanCommand(env environment) *cobra.Command {
	var path, output string
	var all, dryRun bool
	unused := duration(reaper.DefaultUnused)
	cmd := &cobra.Command{
		Use:   "clean NAME... | --all",
		Short: "Hand over what session roles own and drop the unused ones",
		Long: `Does at once what a running server does over time: gives the objects that session
roles own to their users, in every database, and drops session roles without a logon
for the time of --unused. Roles with open sessions are left alone, and the next logon
creates a dropped role again. With --dry-run it prints the plan only.

The exit code is 1 if something could not be cleaned up, and 2 if the command could
not start.`,
		Example: "  daypass cluster clean examplecluster --dry-run\n  daypass cluster clean --all --unused 1h",
		RunE: func(cmd *cobra.Command, names []string) error {
			if all == (len(names) > 0) {
				return usageErrorf("name a cluster, or give --all")
			}
			if err := checkOutput(output, "text"); err != nil {
				return err
			}
			if unused < 0 {
				return usageErrorf("--unused cannot be negative")
			}
			c, err := loadConfig(path)
			if err != nil {
				return err
			}
			clusters, err := c.ClustersNamed(names)
			if err != nil {
				return err
			}
			// In SweepOptions, Unused 0 means never; here it means every role without a session.
			o := handover.SweepOptions{DryRun: dryRun, Unused: max(time.Duration(unused), 1)}
			return cleanClusters(cmd.Context(), env.report(output), clusters, o, output)
		},
	}
	registerConfig(cmd.Flags(), &path)
	cmd.Flags().BoolVar(&all, "all", false, "clean every cluster of the configuration")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only print the plan")
	cmd.Flags().Var(&unused, "unused", "drop session roles without a logon for this long")
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	return cmd
}

// cleaned is the result for one cluster.
type cleaned struct {
	Cluster string `json:"cluster"`
	DryRun  bool   `json:"dry_run"`
	handover.SweepReport
	Error string `json:"error,omitempty"`
}

// cleanClusters cleans the clusters in order. It continues after a cluster that cannot
// be reached.
func cleanClusters(ctx context.Context, w io.Writer, clusters []config.Cluster, o handover.SweepOptions, output string) error {
	var reports []cleaned
	failed := false
	for _, cluster := range clusters {
		if output == "text" {
			fmt.Fprintf(w, "cluster %s\n\n", cluster.Identifier)
			o.Progress = func(s handover.SweepStep) { printStep(w, s, o.DryRun) }
		}
		admin := handover.New(cluster.Administration())
		report, err := admin.Sweep(ctx, o)
		admin.Close()
		c := cleaned{Cluster: cluster.Identifier, DryRun: o.DryRun, SweepReport: report}
		if err != nil {
			c.Error = err.Error()
		}
		failed = failed || err != nil || len(report.Kept) > 0
		reports = append(reports, c)
		if output == "text" {
			printCleaned(w, c)
		}
	}
	if output == "json" {
		if err := writeIndented(w, struct {
			Clusters []cleaned `json:"clusters"`
		}{reports}); err != nil {
			return err
		}
	}
	if failed {
		return &exitError{code: 1}
	}
	return nil
}

func printStep(w io.Writer, s handover.SweepStep, dryRun bool) {
	would := func(done, plan string) string {
		if dryRun {
			return plan
		}
		return done
	}
	switch {
	case s.Stripped != "":
		fmt.Fprintf(w, "  %s the user and the groups of %q away: it has no session\n", would("took", "would take"), s.Stripped)
	case s.HandedOver != nil:
		h := s.HandedOver
		where := "of the whole cluster"
		if h.Database != "" {
			where = fmt.Sprintf("in database %q", h.Database)
		}
		fmt.Fprintf(w, "  %s what %q owns %s to %q\n", would("gave", "would give"), h.Role, where, h.User)
	case s.Kept != nil:
		fmt.Fprintf(w, "  cannot clean up %q: %s\n", s.Kept.Role, quote.Terminal(s.Kept.Reason))
	default:
		fmt.Fprintf(w, "  %s %q\n", would("dropped", "would drop"), s.Dropped)
	}
}

func printCleaned(w io.Writer, c cleaned) {
	if len(c.Stripped)+len(c.HandedOver)+len(c.Dropped)+len(c.Kept) > 0 {
		fmt.Fprintln(w)
	}
	switch {
	case c.Error != "":
		fmt.Fprintf(w, "  %s\n", quote.Terminal(c.Error))
	case c.Standby:
		fmt.Fprintln(w, "  in recovery: name the primary in upstream")
	default:
		done := "handed over"
		dropped := "dropped"
		if c.DryRun {
			done, dropped = "to be handed over", "to be dropped"
		}
		fmt.Fprintf(w, "  %s, %d in use; %d %s, %d %s, %d kept\n",
			plural(c.Roles, "session role"), c.InUse, len(c.HandedOver), done, len(c.Dropped), dropped, len(c.Kept))
	}
	fmt.Fprintln(w)
}
