package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
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
		Short: "List open sessions",
		Long: `Lists the sessions at the gateway: principal, cluster, database, user and groups, start,
address, state, and the bytes in each direction. Of several servers that have peers in
their configuration all are asked, whichever answers; one that did not answer within two
seconds is named, and the exit code is 1. The caller needs daypass:ListSessions on the
clusters. Policies may allow only one's own sessions; then the list has these
(docs/policy.md).`,
		Example: `  daypass sessions --cluster examplecluster
  daypass sessions --output json | jq -r '.Sessions[] | select(.DbUser == "alice").SessionId'
  daypass sessions kill PQ5TSPKVMQHSLZYPGQ3OWEZDLK`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			if err := checkDBUser(dbUser); err != nil {
				return err
			}
			api, err := caller.client(cmd.Context(), env)
			if err != nil {
				return err
			}
			list, unanswered, err := api.Sessions(cmd.Context(), cluster, dbUser)
			if err != nil {
				return callFailed(err)
			}
			if output == "json" {
				err = writeIndented(env.stdout, struct {
					Sessions   []client.Session
					Unanswered []string `json:"Unanswered,omitempty"`
				}{list, unanswered})
			} else {
				err = writeSessions(env.stdout, list, env.columns)
			}
			if err == nil && len(unanswered) > 0 {
				err = &exitError{1, fmt.Errorf("the list lacks the sessions of servers that did not answer: %s: they are frozen, have died just now, are out of reach, or have no `peers` in their configuration",
					strings.Join(unanswered, ", "))}
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&cluster, "cluster", "", "only sessions of this cluster")
	flags.StringVar(&dbUser, "db-user", "", "only sessions of this database user, as in the column USER")
	flags.StringVar(&output, "output", "table", "table or json")
	completeWith(cmd, "output", "table", "json")
	caller.register(flags, daypassEndpoint)
	cmd.AddCommand(newSessionsKillCommand(env))
	return cmd
}

// writeSessions prints one line for each session, with as many details as fit into the columns
// of the terminal. If columns is 0 it prints all.
func writeSessions(out io.Writer, list []client.Session, columns int) error {
	var t table
	for detail := mostDetail; detail >= 0; detail-- {
		if t = sessionTable(list, detail); t.fits(columns) {
			break
		}
	}
	return t.write(out, columns)
}

// mostDetail shows every column. Each lower level leaves out one more column that is long and
// rarely needed.
const mostDetail = 4

func sessionTable(list []client.Session, detail int) (t table) {
	servers := mostDetail + 1 // one server alone has no name in the list
	if slices.ContainsFunc(list, func(s client.Session) bool { return s.Server != "" }) {
		servers = 1
	}
	row := func(session, cluster, database, user, groups, principal, since, from, state, server, in, out string) {
		cells := []string{session}
		for _, one := range []struct {
			from int // the lowest detail with this column
			cell string
		}{{1, cluster}, {0, database}, {0, user}, {0, groups}, {1, principal}, {0, since}, {2, from}, {0, state}, {servers, server}, {3, in}, {3, out}} {
			if detail >= one.from {
				cells = append(cells, one.cell)
			}
		}
		t.add(cells...)
	}
	row("SESSION", "CLUSTER", "DATABASE", "USER", "GROUPS", "PRINCIPAL", "SINCE", "FROM", "STATE", "SERVER", "IN", "OUT")
	for _, s := range list {
		principal, since := s.Principal, s.StartedAt.UTC().Format(time.RFC3339)
		if detail < mostDetail {
			principal = principal[strings.LastIndexByte(principal, ':')+1:]
			since = s.StartedAt.UTC().Format("01-02 15:04Z")
		}
		row(s.ID, s.Cluster, s.Database, s.DBUser, strings.Join(s.DBGroups, ","), principal, since, s.ClientAddress, s.State, s.Server, size(s.BytesFromClient), size(s.BytesToClient))
	}
	return t
}

// size formats a number of bytes for people, with about three digits.
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
		Use:     "kill SESSION...",
		Short:   "End sessions",
		Example: `  daypass sessions kill PQ5TSPKVMQHSLZYPGQ3OWEZDLK`,
		Long: `Ends sessions, as pg_terminate_backend does: a running query is cancelled, and the
client gets 57P01. The credential stays valid; "daypass revoke" revokes it. The caller
needs daypass:TerminateSession, which policies may allow for one's own sessions only.`,
		Args: words(1, -1, "name sessions, as daypass sessions lists them"),
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
	caller.register(cmd.Flags(), daypassEndpoint)
	return cmd
}
