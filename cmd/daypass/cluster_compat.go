package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/compat"
	"github.com/daypass/daypass/internal/handover"
)

func newClusterCompatCommand(env environment) *cobra.Command {
	var path string
	var o compat.Options
	cmd := &cobra.Command{
		Use:   "compat NAME",
		Short: "Install functions and views for sessions with groups and for Redshift's drivers",
		Long: `Installs the schema daypass in one database of the cluster:

  daypass.db_user()   the database user, in sessions with and without groups. In a
                      session with groups current_user is the session role, so
                      row security policies should use daypass.db_user() in
                      place of current_user.
  daypass.pg_cancel_backend(pid), daypass.pg_terminate_backend(pid),
  daypass.my_sessions
                      for all sessions of the caller's own database user. The
                      administrative login has to be a member of
                      pg_signal_backend and pg_read_all_stats.
  views               svv_tables, svv_columns, stv_sessions, pg_user_info and
                      others that the metadata calls of Redshift's drivers use.
                      The schema is added to the end of the database's search
                      path.

The administrative login needs the right to create schemas in the database
(GRANT CREATE ON DATABASE), and has to own the database to change its search path.
The command prints the steps that it may not do. It can be run again at any time.
With --dry-run it prints the SQL only; if a superuser runs that, the administrative
login cannot change db_user(). The script is one transaction. It changes nothing if
objects of other owners are in its way. --remove removes everything, unless a policy,
a view or another object depends on it.`,
		Example: `  daypass cluster compat examplecluster
  daypass cluster compat examplecluster --database dev --dry-run | psql -d dev`,
		Args: words(1, 1, "name one cluster"),
		RunE: func(cmd *cobra.Command, names []string) error {
			c, err := loadConfig(path)
			if err != nil {
				return err
			}
			clusters, err := c.ClustersNamed(names)
			if err != nil {
				return err
			}
			if o.Database == "" {
				o.Database = clusters[0].Database
			}
			if o.Database == "" {
				return fmt.Errorf("cluster %q has no default database: name one with --database", names[0])
			}
			admin := handover.New(clusters[0].Administration())
			defer admin.Close()
			report, err := compat.Install(cmd.Context(), admin.Pool, o)
			if err != nil {
				return err
			}
			printCompat(env.stdout, report, o)
			return nil
		},
	}
	registerConfig(cmd.Flags(), &path)
	cmd.Flags().StringVar(&o.Database, "database", "", "the `DATABASE` (default the cluster's)")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "print the SQL and change nothing")
	cmd.Flags().BoolVar(&o.Remove, "remove", false, "remove everything again")
	return cmd
}

// printCompat prints a script for psql, or a report of the changes.
func printCompat(w io.Writer, r compat.Report, o compat.Options) {
	if o.DryRun {
		fmt.Fprint(w, r.Script())
		return
	}
	switch {
	case len(r.SQL) == 0 && o.Remove:
		fmt.Fprintf(w, "database %q of cluster %s: there is no schema daypass\n", r.Database, r.Cluster)
	case len(r.SQL) == 0:
		fmt.Fprintf(w, "database %q of cluster %s: the schema daypass is up to date; it belongs to a superuser\n", r.Database, r.Cluster)
	case o.Remove:
		fmt.Fprintf(w, "database %q of cluster %s: removed the schema daypass\n", r.Database, r.Cluster)
	default:
		fmt.Fprintf(w, "database %q of cluster %s: installed daypass.db_user() and the views of Redshift's drivers\n", r.Database, r.Cluster)
	}
	for _, sql := range r.ForOwner {
		fmt.Fprintf(w, "The owner of the database or a superuser has to run, for Redshift's drivers:\n\n    %s;\n", sql)
	}
	if len(r.ForSuperuser) > 0 {
		fmt.Fprintf(w, "A superuser has to run, for daypass.pg_cancel_backend() and the like:\n\n    %s;\n", strings.Join(r.ForSuperuser, ";\n    "))
	}
}
