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
address, state, and the bytes in each direction. The caller needs daypass:ListSessions on
the clusters. If policies allow only the caller's own sessions, the list has only those
(docs/policy.md).

If the servers have peers in their configuration, the list has the sessions of all of
them. If a server did not answer within two seconds, the command names it and exits with 1.`,
		Example: `  daypass sessions --cluster examplecluster
  daypass sessions --output json | jq -r '.Sessions[] | select(.DbUser == "alice").SessionId'
  daypass sessions kill PQ5TSPKVMQHSLZYPGQ3OWEZDLK`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table"); err != nil {
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

func sessionTable(list []client.Session, detail int) table {
	servers := mostDetail + 1 // one server alone has no name in the list
	if slices.ContainsFunc(list, func(s client.Session) bool { return s.Server != "" }) {
		servers = 1
	}
	principal := func(s client.Session) string { return s.Principal }
	since := func(s client.Session) string { return s.StartedAt.UTC().Format(time.RFC3339) }
	if detail < mostDetail {
		principal = func(s client.Session) string { return s.Principal[strings.LastIndexByte(s.Principal, ':')+1:] }
		since = func(s client.Session) string { return s.StartedAt.UTC().Format("01-02 15:04Z") }
	}
	columns := []struct {
		detail int // the lowest with this column
		title  string
		cell   func(client.Session) string
	}{
		{0, "SESSION", func(s client.Session) string { return s.ID }},
		{1, "CLUSTER", func(s client.Session) string { return s.Cluster }},
		{0, "DATABASE", func(s client.Session) string { return s.Database }},
		{0, "USER", func(s client.Session) string { return s.DBUser }},
		{0, "GROUPS", func(s client.Session) string { return strings.Join(s.DBGroups, ",") }},
		{1, "PRINCIPAL", principal},
		{0, "SINCE", since},
		{2, "FROM", func(s client.Session) string { return s.ClientAddress }},
		{0, "STATE", func(s client.Session) string { return s.State }},
		{servers, "SERVER", func(s client.Session) string { return s.Server }},
		{3, "IN", func(s client.Session) string { return size(s.BytesFromClient) }},
		{3, "OUT", func(s client.Session) string { return size(s.BytesToClient) }},
	}
	rows := make([][]string, 1+len(list)) // the titles first
	for _, column := range columns {
		if detail < column.detail {
			continue
		}
		rows[0] = append(rows[0], column.title)
		for i, s := range list {
			rows[i+1] = append(rows[i+1], column.cell(s))
		}
	}
	var t table
	for _, row := range rows {
		t.add(row...)
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
