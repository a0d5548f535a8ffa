package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/compat"
)

func newClusterCompatCommand(env environment) *cobra.Command {
	var path string
	var o compat.Options
	cmd := &cobra.Command{
		Use:   "compat NAME",
		Short: "Install what sessions with groups and Redshift's drivers look for in a database",
		Long: `Installs the schema daypass in one database of the cluster:

  daypass.db_user()   the database user, in sessions with and without groups. In a
                      session with groups current_user is the session role; a row
                      security policy that says daypass.db_user() where it said
                      current_user sees the user in both.
  daypass.pg_cancel_backend(pid), daypass.pg_terminate_backend(pid), daypass.my_sessions
                      for the sessions of one's own database user, whatever their
                      groups. The administrative login needs to be a member of
                      pg_signal_backend and pg_read_all_stats for them.
  views               svv_tables, svv_columns, stv_sessions, pg_user_info and
                      others that the metadata calls of Redshift's drivers ask for.
                      They find them by the database's search path, at whose end
                      the schema is put.

The administrative login needs the right to create schemas in the database
(GRANT CREATE ON DATABASE), and for the search path to own it; what it may not do
is printed. It can be run again at any time. With --dry-run it prints the SQL and
changes nothing: a superuser who runs it keeps db_user() out of the
administrative login's hands. The script is one transaction, and ends without
having changed anything where somebody else's objects are in its way. --remove
takes it all away, and refuses as long as a policy, a view or anything else depends
on it.`,
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
			admin := administer(clusters[0])
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
	cmd.Flags().StringVar(&o.Database, "database", "", "the `DATABASE` (left out: the cluster's default)")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "print the SQL and change nothing")
	cmd.Flags().BoolVar(&o.Remove, "remove", false, "take it away again")
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
