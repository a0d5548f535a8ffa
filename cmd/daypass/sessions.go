package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/client"
	"github.com/daypass/daypass/internal/quote"
)

func newSessionsCommand(env environment) *cobra.Command {
	var caller callerFlags
	var cluster, dbUser, output string
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List who is logged on",
		Long: `Lists the sessions at the gateway: who is logged on to what, as whom, since when,
from where, what the session does and the bytes each way. The caller needs
daypass:ListSessions on the clusters.`,
		Example: `  daypass sessions --cluster examplecluster
  daypass sessions --output json | jq -r '.Sessions[] | select(.DbUser == "alice").SessionId'
  daypass sessions kill PQ5TSPKVMQHSLZYPGQ3OWEZDLK`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			api, err := caller.client(cmd.Context(), env)
			if err != nil {
				return err
			}
			list, err := api.Sessions(cmd.Context(), cluster, dbUser)
			if err != nil {
				return callFailed(err)
			}
			if output == "json" {
				return writeIndented(env.stdout, struct{ Sessions []client.Session }{list})
			}
			return writeSessions(env.stdout, list)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&cluster, "cluster", "", "only sessions of this cluster")
	flags.StringVar(&dbUser, "db-user", "", "only sessions of this database user")
	flags.StringVar(&output, "output", "table", "table or json")
	completeWith(cmd, "output", "table", "json")
	caller.register(flags)
	cmd.AddCommand(newSessionsKillCommand(env))
	return cmd
}

func writeSessions(out io.Writer, list []client.Session) error {
	var t table
	t.add("SESSION", "CLUSTER", "DATABASE", "USER", "PRINCIPAL", "SINCE", "FROM", "STATE", "IN", "OUT")
	for _, s := range list {
		user := strings.Join(append([]string{s.DBUser}, s.DBGroups...), ":")
		t.add(s.ID, s.Cluster, s.Database, user, s.Principal,
			s.StartedAt.UTC().Format(time.RFC3339), s.ClientAddress, s.State, size(s.BytesFromClient), size(s.BytesToClient))
	}
	return t.write(out)
}

// size is a number of bytes for people: three digits or so.
func size(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	value := float64(n) / 1024
	for len(units) > 1 && value >= 1023.95 {
		value, units = value/1024, units[1:]
	}
	return fmt.Sprintf("%.1f %s", value, units[0])
}

func newSessionsKillCommand(env environment) *cobra.Command {
	var caller callerFlags
	cmd := &cobra.Command{
		Use:   "kill SESSION...",
		Short: "End sessions",
		Long: `Ends sessions, as pg_terminate_backend does: what runs is cancelled, and the
client is told so with 57P01. The credential stays good; "daypass revoke" takes it
back. The caller needs daypass:TerminateSession.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := caller.client(cmd.Context(), env)
			if err != nil {
				return err
			}
			var failed []error
			for _, id := range args {
				if err := api.Terminate(cmd.Context(), id); err != nil {
					failed = append(failed, fmt.Errorf("%s: %w", id, err))
					continue
				}
				fmt.Fprintf(env.stdout, "%s is being ended.\n", quote.Terminal(id))
			}
			return callFailed(errors.Join(failed...))
		},
	}
	caller.register(cmd.Flags())
	return cmd
}
