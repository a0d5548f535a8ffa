//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestBalancerUsesReadyServersInTurn(t *testing.T) {
	v := &several{}
	for i := range v.servers {
		v.servers[i] = &server{slot: i, gateway: fmt.Sprint("server", i)}
	}
	next := v.balance(func(s *server) string { return s.gateway })
	if got := next(); got != "127.0.0.1:1" {
		t.Errorf("with no server ready: %s", got)
	}
	v.servers[0].ready.Store(true)
	v.servers[2].ready.Store(true)
	var got []string
	for range 4 {
		got = append(got, next())
	}
	slices.Sort(got)
	if want := []string{"server0", "server0", "server2", "server2"}; !slices.Equal(got, want) && !slices.Equal(slices.Compact(got), []string{"server0", "server2"}) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestClientsTryAgainOnlyWhereItHelps(t *testing.T) {
	for _, row := range []struct {
		err   error
		how   string
		final bool
	}{
		{&pgconn.PgError{Code: "28000"}, "28000", true},
		{&pgconn.PgError{Code: "08001"}, "08001", true},
		{fmt.Errorf("connecting: %w", &pgconn.PgError{Code: "57P03"}), "57P03", false},
		{context.DeadlineExceeded, "no answer in time", false},
		{errors.New("connection reset"), "no connection", false},
	} {
		if how, final := outcome(row.err); how != row.how || final != row.final {
			t.Errorf("outcome(%v) = %s, %v", row.err, how, final)
		}
	}
}

func TestAgainGivesUpInTime(t *testing.T) {
	for name, row := range map[string]struct {
		failures int // before the first success
		err      error
		tries    int
	}{
		"at once":           {0, nil, 1},
		"the third time":    {2, nil, 3},
		"refused for good":  {100, &pgconn.PgError{Code: "28000"}, 1},
		"refused for a bit": {2, &pgconn.PgError{Code: "57P03"}, 3},
	} {
		v := &several{load: &load{ledger: newLedger(time.Now, func(string, ...any) {})}, tries: map[string]int{}}
		tries := 0
		err := v.again(t.Context(), classLogon, func(context.Context) error {
			if tries++; tries > row.failures {
				return nil
			}
			if row.err != nil {
				return row.err
			}
			return errors.New("reset")
		})
		if tries != row.tries || (err != nil) != (row.failures == 100) {
			t.Errorf("%s: %d tries, %v", name, tries, err)
		}
	}
}

func TestStallsAreCounted(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	c := control{stalls: []sample{{at(10), at(12)}, {at(20), at(25)}}}
	for _, row := range []struct {
		begin, end     int
		total, longest time.Duration
	}{
		{0, 9, 0, 0}, {0, 11, 2 * time.Second, 2 * time.Second}, {11, 21, 7 * time.Second, 5 * time.Second}, {26, 30, 0, 0},
	} {
		if total, longest := c.stalled(at(row.begin), at(row.end)); total != row.total || longest != row.longest {
			t.Errorf("stalled(%d, %d) = %v, %v", row.begin, row.end, total, longest)
		}
	}
}
