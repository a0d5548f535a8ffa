package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/client"
)

// TestSessionsFit: the list fits the terminal, and shows the session, the user and the state. A
// pipe gets all columns.
func TestSessionsFit(t *testing.T) {
	list := []client.Session{{
		ID: "PQ5TSPKVMQHSLZYPGQ3OWEZDLK", Cluster: "examplecluster", Database: "dev\x1b[2J\u202e", DBUser: "alice", DBGroups: []string{"analysts", "finance"},
		Principal: "arn:aws:sts::123456789012:assumed-role/etl/nightly", StartedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		ClientAddress: "192.0.2.10:54321", State: "idle", BytesFromClient: 1 << 20, BytesToClient: 3 << 30,
	}}
	for _, columns := range []int{0, 200, 160, 130, 100, 90, 60, 40} {
		var out strings.Builder
		if err := writeSessions(&out, list, columns); err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(out.String(), "\n") {
			if columns > 0 && utf8.RuneCountInString(line) > columns {
				t.Errorf("in %d columns, a line has %d:\n%s", columns, utf8.RuneCountInString(line), out.String())
			}
		}
		for _, word := range []string{"PQ5TSPKVMQHSLZYPGQ3OWEZDLK", "alice", "analysts,finance", "idle", `dev\u001b[2J\u202e`} {
			if !strings.Contains(out.String(), word) {
				t.Errorf("in %d columns there is no %s:\n%s", columns, word, out.String())
			}
		}
		if strings.Contains(out.String(), "SERVER") {
			t.Errorf("one server alone has a column:\n%s", out.String())
		}
		if columns == 0 && (!strings.Contains(out.String(), "arn:aws:sts::123456789012:assumed-role/etl/nightly") || !strings.Contains(out.String(), "2026-01-02T03:04:05Z") || !strings.Contains(out.String(), "3.0 GiB")) {
			t.Errorf("in a pipe:\n%s", out.String())
		}
	}
}

// TestSessionsOfSeveralServers: the list of several servers says which has each session.
func TestSessionsOfSeveralServers(t *testing.T) {
	list := []client.Session{{ID: "PQ5TSPKVMQHSLZYPGQ3OWEZDLK", DBUser: "alice", State: "idle", Server: "db1-k3v9zq"}}
	for _, columns := range []int{0, 120} {
		var out strings.Builder
		if err := writeSessions(&out, list, columns); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), "SERVER") || !strings.Contains(out.String(), "db1-k3v9zq") {
			t.Errorf("in %d columns:\n%s", columns, out.String())
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 1 << 40: "1.0 TiB", 1<<64 - 1: "16.0 EiB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
}
