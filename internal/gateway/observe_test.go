package gateway_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/test/pgtest"
)

// TestObserve: each attempt to log on is reported once, with its reason, and the traffic of
// running and ended sessions is counted.
func TestObserve(t *testing.T) {
	var mu sync.Mutex
	var events []gateway.LogonEvent
	f := newFixture(t, func(c *gateway.Config) {
		c.Observe = func(e gateway.LogonEvent) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		}
	})
	last := func() gateway.LogonEvent {
		t.Helper()
		var e gateway.LogonEvent
		pgtest.Eventually(t, "an event", func() bool {
			mu.Lock()
			defer mu.Unlock()
			if len(events) == 0 {
				return false
			}
			e, events = events[0], events[1:]
			return true
		})
		return e
	}
	pg := pgtest.Start(t)
	f.real(pg)
	grant := f.grant(pg.Name("alice"))
	conn := f.connect(grant, "")
	e := last()
	if e.Reason != gateway.ReasonOK || e.Cluster != "examplecluster" || e.CredentialID != grant.ID || e.SQLState != "" || e.Upstream == "" || e.Err != nil {
		t.Errorf("event of a session = %+v", e)
	}
	for i, step := range [][2]time.Time{{e.Accepted, e.Greeted}, {e.Greeted, e.Password}, {e.Password, e.Prepared}, {e.Prepared, e.Connected}, {e.Connected, e.Ended}} {
		if step[0].IsZero() || step[1].Before(step[0]) {
			t.Errorf("step %d goes from %v to %v", i, step[0], step[1])
		}
	}

	value[string](t, conn, "SELECT repeat('x', 10000)")
	running := f.server.Stats().Clusters["examplecluster"]
	if running.Sessions != 1 || running.BytesToClient < 10000 || running.BytesFromClient == 0 || running.Ended != 0 {
		t.Errorf("Stats() with a session = %+v", running)
	}
	conn.Close(t.Context())
	pgtest.Eventually(t, "the end", func() bool { return f.server.Stats().Clusters["examplecluster"].Ended == 1 })
	if over := f.server.Stats().Clusters["examplecluster"]; over.Sessions != 0 || over.BytesToClient < running.BytesToClient {
		t.Errorf("Stats() after it = %+v, before %+v: bytes are lost", over, running)
	}

	f.add(&gateway.Cluster{Identifier: "down", Admin: &fakeAdmin{err: &adminconn.Error{Kind: adminconn.ErrUnreachable, Message: "down"}}})
	elsewhere, down, missing := grant, grant, f.grant("nobody "+pg.Name("x"))
	elsewhere.Cluster, down.Cluster, missing.AutoCreate = "elsewhere", "down", false
	expired := grant
	expired.IssuedAt, expired.NotAfter = grant.IssuedAt.Add(-time.Hour), grant.IssuedAt.Add(-time.Minute)
	for _, row := range []struct {
		name, user, password string
		reason, state        string
		cluster              string
	}{
		{"a forgery", grant.LogonName(), f.mint(grant) + "x", gateway.ReasonForged, "28000", ""},
		{"an expired credential", expired.LogonName(), f.mint(expired), gateway.ReasonExpired, "28000", "examplecluster"},
		{"another machine's cluster", elsewhere.LogonName(), f.mint(elsewhere), gateway.ReasonRefused, "08004", ""},
		{"a cluster that is down", down.LogonName(), f.mint(down), gateway.ReasonUnreachable, "08001", "down"},
		{"a user that is missing", missing.LogonName(), f.mint(missing), gateway.ReasonRefused, "28000", "examplecluster"},
	} {
		if _, err := f.try(row.user, row.password, ""); err == nil {
			t.Errorf("%s: logged on", row.name)
		}
		if e := last(); e.Reason != row.reason || e.SQLState != row.state || e.Cluster != row.cluster || e.Err == nil {
			t.Errorf("%s: event = %+v, want %s, %s of cluster %q", row.name, e, row.reason, row.state, row.cluster)
		}
	}

	for kind, want := range map[error]string{
		adminconn.ErrNotReady: gateway.ReasonNotReady, adminconn.ErrLagging: gateway.ReasonNotReady, adminconn.ErrReadOnly: gateway.ReasonNotReady,
		adminconn.ErrFull: gateway.ReasonFull, adminconn.ErrRights: gateway.ReasonRights, dbuser.ErrGroupRefused: gateway.ReasonRefused, dbuser.ErrManyRoles: gateway.ReasonLimit,
		errors.New("no kind of its own"): gateway.ReasonInternal,
	} {
		f.add(&gateway.Cluster{Identifier: "down", Admin: &fakeAdmin{err: fmt.Errorf("preparing: %w", kind)}})
		if _, err := f.try(down.LogonName(), f.mint(down), ""); err == nil {
			t.Errorf("%v: logged on", kind)
		}
		if e := last(); e.Reason != want {
			t.Errorf("%v: reason %q, want %q", kind, e.Reason, want)
		}
	}
	f.dial().send(packet(80877102, make([]byte, 8))) // no attempt to log on
	f.dial().send([]byte("GET / HTTP/1.1\r\n\r\n"))
	if e := last(); e.Reason != gateway.ReasonProtocol || e.SQLState != "" {
		t.Errorf("event of an HTTP request = %+v", e)
	}

	f.audit.setBroken(errors.New("disk full"))
	if _, err := f.try(grant.LogonName(), f.mint(grant), ""); err == nil {
		t.Error("logged on without a record")
	}
	if e := last(); e.Reason != gateway.ReasonAudit {
		t.Errorf("event = %+v, want reason audit", e)
	}
}

// TestAlertKnowsTheReasons: the critical alert counts every reason that is not the client's
// fault.
func TestAlertKnowsTheReasons(t *testing.T) {
	alerts, err := os.ReadFile("../../deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`daypass_logons_total\{result=~"([^"]*unreachable[^"]*)"\}`).FindSubmatch(alerts)
	if match == nil {
		t.Fatal("no alert by result")
	}
	counted := strings.Split(string(match[1]), "|")
	for _, reason := range []string{gateway.ReasonUnreachable, gateway.ReasonNotReady, gateway.ReasonFull, gateway.ReasonRights, gateway.ReasonUpstream,
		gateway.ReasonAudit, gateway.ReasonUnknown, gateway.ReasonInternal} {
		if !slices.Contains(counted, reason) {
			t.Errorf("the alert does not count %q", reason)
		}
	}
}
