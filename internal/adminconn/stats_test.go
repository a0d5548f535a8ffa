package adminconn_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/pgtest"
)

// TestStatsAndPing uses a cluster that is up and one that is down.
func TestStatsAndPing(t *testing.T) {
	s := pgtest.Start(t)
	f := plain(t, s)
	var mu sync.Mutex
	told := map[dbuser.Operation]int{}
	a := f.Another(func(c *dbuser.Config) {
		c.Observe = func(op dbuser.Operation, took time.Duration, err error) {
			mu.Lock()
			defer mu.Unlock()
			if told[op]++; took <= 0 || err != nil {
				t.Errorf("%s took %v: %v", op, took, err)
			}
		}
	})
	if got := a.Pool.Stats(); got.Reached || got.Err != nil || got.Limit == 0 {
		t.Errorf("Stats before anything = %+v", got)
	}
	if err := a.Pool.Ping(t.Context()); err != nil {
		t.Fatalf("Ping = %v", err)
	}
	need := dbuser.Need{User: f.Name("newcomer"), AutoCreate: true}
	for range 2 {
		if _, err := a.Ensure(t.Context(), need); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	if told[dbuser.Look] != 2 || told[dbuser.Change] != 1 {
		t.Errorf("told %v, want two looks and one change", told)
	}
	mu.Unlock()
	if got := a.Pool.Stats(); !got.Reached || got.Err != nil || got.Idle == 0 || got.InUse != 0 || got.Connects == 0 {
		t.Errorf("Stats at work = %+v", got)
	}

	down := f.Another(func(c *dbuser.Config) { c.Conn.Port = 1 })
	if err := down.Pool.Ping(t.Context()); !errors.Is(err, adminconn.ErrUnreachable) {
		t.Errorf("Ping of nobody = %v, want ErrUnreachable", err)
	}
	if got := down.Pool.Stats(); got.Reached || !errors.Is(got.Err, adminconn.ErrUnreachable) || got.InUse != 0 {
		t.Errorf("Stats of nobody = %+v", got)
	}
}
