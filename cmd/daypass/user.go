package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/quote"
)

func newUserCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "user",
		Short:   "Drop database users",
		Example: `  daypass user drop alice --cluster examplecluster --reassign-to archive`,
		Args:    noWords,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newUserDropCommand(env))
	return cmd
}

// userDropOptions are the options of user drop.
type userDropOptions struct {
	config, cluster string
	drop            handover.DropOptions
	dryRun, yes     bool
	output          string
}

func newUserDropCommand(env environment) *cobra.Command {
	var o userDropOptions
	cmd := &cobra.Command{
		Use:   "drop NAME --cluster CLUSTER",
		Short: "Drop a database user with its grants, and reassign its objects",
		Long: `Drops a database user and its session roles. Its objects, in every database, go to the
role of --reassign-to; grants to the user, its default privileges and its entries in
policies are removed. No object with data is dropped.

The command prints the plan first. Without --yes it does nothing else, and it does not
begin a plan with problems. Open sessions are a problem unless --force ends them. If
it is interrupted, the user cannot log on; run it again.

The exit code is 0 if the user does not exist any more (without --yes: if the plan has
no problems), 1 if there are problems, and 2 if the command could not start.`,
		Example: `  daypass user drop alice --cluster examplecluster --reassign-to archive
  daypass user drop alice --cluster examplecluster --reassign-to archive --force --yes`,
		Args: words(1, 1, "name one database user"),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), env, args[0]) },
	}
	registerConfig(cmd.Flags(), &o.config)
	cmd.Flags().StringVar(&o.cluster, "cluster", "", "the `CLUSTER` that the user is dropped from")
	cmd.Flags().StringVar(&o.drop.ReassignTo, "reassign-to", "", "the `ROLE` that gets the user's objects")
	cmd.Flags().BoolVar(&o.drop.Force, "force", false, "end the user's open sessions")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only print the plan, as without --yes")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do it")
	cmd.Flags().StringVar(&o.output, "output", "text", "text or json")
	return cmd
}

func (o *userDropOptions) run(ctx context.Context, env environment, user string) error {
	switch {
	case o.cluster == "":
		return usageErrorf("--cluster is required: the cluster to drop the user from")
	case o.dryRun && o.yes:
		return usageErrorf("--dry-run and --yes exclude each other")
	}
	if err := checkOutput(o.output, "text"); err != nil {
		return err
	}
	c, err := loadConfig(o.config)
	if err != nil {
		return err
	}
	found, err := c.ClustersNamed([]string{o.cluster})
	if err != nil {
		return err
	}
	admin := handover.New(found[0].Administration())
	defer admin.Close()
	if o.output == "json" {
		return o.dropInJSON(ctx, env.stdout, admin, user)
	}
	return o.dropInText(ctx, env.report(o.output), admin, user)
}

// dropInText prints the plan and, with --yes, follows it.
func (o *userDropOptions) dropInText(ctx context.Context, w io.Writer, admin *handover.Admin, user string) error {
	plan, err := admin.PlanDrop(ctx, user, o.drop)
	if err != nil {
		return err
	}
	printDropPlan(w, plan, o.drop)
	switch {
	case len(plan.Problems) > 0:
		return &exitError{code: 1}
	case plan.Nothing() || o.dryRun:
		return nil
	case !o.yes:
		fmt.Fprintln(w, "\nNothing was changed. --yes does it.")
		return nil
	}
	fmt.Fprintln(w)
	drop := o.drop
	drop.Progress = func(text string) { fmt.Fprintf(w, "  %s\n", quote.Terminal(text)) }
	switch plan, err = admin.DropUser(ctx, user, drop); {
	case errors.Is(err, handover.ErrBlocked): // the situation has changed since the plan was made
		printProblems(w, plan)
		return &exitError{code: 1}
	case err != nil:
		return fmt.Errorf("%w (what was done stays done; run it again)", err)
	}
	return nil
}

// dropped is what `user drop --output json` prints.
type dropped struct {
	handover.DropPlan
	Done bool `json:"done"`
}

// dropInJSON prints the plan, which --yes has followed.
func (o *userDropOptions) dropInJSON(ctx context.Context, w io.Writer, admin *handover.Admin, user string) error {
	act := admin.PlanDrop
	if o.yes {
		act = admin.DropUser
	}
	plan, err := act(ctx, user, o.drop)
	if err != nil && !errors.Is(err, handover.ErrBlocked) {
		return err
	}
	if err := writeIndented(w, dropped{plan, o.yes && err == nil}); err != nil {
		return err
	}
	if len(plan.Problems) > 0 {
		return &exitError{code: 1}
	}
	return nil
}

func printDropPlan(w io.Writer, p handover.DropPlan, o handover.DropOptions) {
	if p.Nothing() {
		fmt.Fprintf(w, "There is no user %q in cluster %s, and nothing is left of it.\n", p.User, p.Cluster)
		return
	}
	fmt.Fprintf(w, "To drop user %q of cluster %s:\n\n", p.User, p.Cluster)
	if !p.Exists {
		fmt.Fprintf(w, "  the user is gone; session roles are left\n")
	}
	for _, s := range p.Sessions {
		verb := "is open"
		if o.Force {
			verb = "is ended"
		}
		fmt.Fprintf(w, "  %s as %q in database %q %s\n", plural(s.Count, "session"), s.Role, s.Database, strings.Replace(verb, "is", isAre(s.Count), 1))
	}
	for _, u := range p.Databases {
		where := fmt.Sprintf("in database %q", u.Database)
		if u.Database == "" {
			where = "of the whole cluster"
		}
		if u.Owned > 0 {
			to := "which needs --reassign-to"
			if o.ReassignTo != "" {
				to = fmt.Sprintf("to be given to %q", o.ReassignTo)
			}
			fmt.Fprintf(w, "  %q owns %s %s, %s\n", u.Role, plural(u.Owned, "object"), where, to)
			for _, e := range u.Examples {
				fmt.Fprintf(w, "      %s\n", quote.Terminal(e))
			}
			if more := u.Owned - len(u.Examples); more > 0 && len(u.Examples) > 0 {
				fmt.Fprintf(w, "      and %d more\n", more)
			}
		}
		if u.Named > 0 {
			fmt.Fprintf(w, "  %q is named by %s %s, to be taken out\n", u.Role, plural(u.Named, "grant, policy or default privilege"), where)
		}
	}
	for _, r := range p.Orphans {
		fmt.Fprintf(w, "  role %q is left to superusers: no other login administers it\n", r)
	}
	for _, r := range p.SessionRoles {
		fmt.Fprintf(w, "  session role %q is dropped\n", r)
	}
	if p.Exists {
		fmt.Fprintf(w, "  user %q is dropped\n", p.User)
	}
	printProblems(w, p)
}

func printProblems(w io.Writer, p handover.DropPlan) {
	if len(p.Problems) > 0 {
		fmt.Fprint(w, "\nIt cannot be done yet:\n\n")
	}
	for _, problem := range p.Problems {
		fmt.Fprintf(w, "  %s\n", quote.Terminal(problem.Message))
		for _, sql := range problem.SQL {
			fmt.Fprintf(w, "      %s;\n", sql)
		}
	}
}
