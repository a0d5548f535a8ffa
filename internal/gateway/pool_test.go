package gateway

import (
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/session"
)

// endsAdmin counts the clean-ups.
type endsAdmin struct {
	Admin
	ended atomic.Int32
}

func (a *endsAdmin) SessionEnded(string, *dbuser.Backend) { a.ended.Add(1) }

// TestMakeRoom: a server takes three seconds to close a session of the pool. A logon that finds no free
// connection waits for that, whether the session was waiting, already ending, or arriving. The clean-up
// after a parked session does not wait as long; there is none after a spare, which has run nothing.
func TestMakeRoom(t *testing.T) {
	every := func(*pooled) bool { return true }
	kinds := map[string]pooled{"spare": {order: &spareOrder{}}, "parked": {origin: &origin{}}}
	states := map[string]func(*Server, *pooled, *upstream){
		"waiting": func(s *Server, one *pooled, up *upstream) { s.settle(one, up, true) },
		"ending": func(s *Server, one *pooled, up *upstream) {
			s.settle(one, up, true)
			s.endNow(false, every)
			synctest.Wait()
		},
		"arriving": func(s *Server, one *pooled, up *upstream) {
			go func() {
				time.Sleep(time.Second)
				if s.settle(one, up, true) {
					t.Error("it waits although it had to end")
				}
			}()
		},
	}
	for kind, like := range kinds {
		for state, begin := range states {
			t.Run(kind+", "+state, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					conn, server := net.Pipe()
					admin := &endsAdmin{}
					s := &Server{pool: newPool(), sessions: newTable(0), log: slog.New(slog.DiscardHandler), cluster: func(string) (*Cluster, bool) { return nil, false }}
					one := &pooled{key: poolKey{admin: admin}, cluster: &Cluster{Identifier: "examplecluster", Admin: admin, Parking: session.Parking{Max: 1}},
						order: like.order, origin: like.origin, gone: make(chan struct{})}
					s.pool.arriving, s.pool.watched = []*pooled{one}, true
					cleanUps := int32(0)
					if kind == "parked" && state != "arriving" { // else park leaves the clean-up to its caller
						cleanUps = 1
					}
					closed := false
					go func() {
						terminate := make([]byte, 5)
						_, _ = io.ReadFull(server, terminate)
						time.Sleep(closeTime + time.Millisecond)
						synctest.Wait()
						if n := admin.ended.Load(); n != cleanUps {
							t.Errorf("%d clean-ups while the server takes its time, want %d", n, cleanUps)
						}
						time.Sleep(2 * time.Second)
						closed = true
						server.Close()
					}()
					begin(s, one, &upstream{Conn: session.NewConn(conn, nil)})
					if !s.makeRoom(closePatience, every) || !closed {
						t.Errorf("makeRoom() = false, or the server has not closed the session: %v", closed)
					}
					synctest.Wait()
					if s.makeRoom(closePatience, every) {
						t.Error("makeRoom() = true when all are gone")
					}
				})
			})
		}
	}
}

// TestSweepPool: a session of the pool ends when its time is over, and when its cluster has changed.
func TestSweepPool(t *testing.T) {
	type parkedFor struct{ valid, age time.Duration } // of the credential, of the upstream session
	same := func(c Cluster) *Cluster { return &c }
	removed := func(Cluster) *Cluster { return nil }
	elsewhere := func(c Cluster) *Cluster { c.Upstream = &pgconn.Config{}; return &c }
	for name, row := range map[string]struct {
		parked *parkedFor // nil: a spare
		after  time.Duration
		change func(Cluster) *Cluster
		ends   bool
	}{
		"spare":                    {nil, 58 * time.Second, same, false},
		"spare, old":               {nil, spareAge, same, true},
		"spare, cluster removed":   {nil, 0, removed, true},
		"spare, cluster elsewhere": {nil, 0, elsewhere, true},
		"spare, another admin":     {nil, 0, func(c Cluster) *Cluster { c.Admin = &endsAdmin{}; return &c }, true},
		"spare, another limit":     {nil, 0, func(c Cluster) *Cluster { c.MaxSessions++; return &c }, false},

		"parked":                    {&parkedFor{valid: time.Hour}, 29 * time.Second, same, false},
		"parked, idle":              {&parkedFor{valid: time.Hour}, 30 * time.Second, same, true},
		"parked, old":               {&parkedFor{valid: time.Hour, age: 10 * time.Minute}, 0, same, true},
		"parked, expired":           {&parkedFor{valid: time.Second}, time.Second, same, true},
		"parked, cluster removed":   {&parkedFor{valid: time.Hour}, 0, removed, true},
		"parked, cluster elsewhere": {&parkedFor{valid: time.Hour}, 0, elsewhere, true},
		"parked, another limit":     {&parkedFor{valid: time.Hour}, 0, func(c Cluster) *Cluster { c.Parking.Max++; return &c }, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, server := net.Pipe()
				go func() { _, _ = io.Copy(io.Discard, server) }()
				cluster := Cluster{Identifier: "examplecluster", Admin: &endsAdmin{}, Upstream: &pgconn.Config{}, Parking: session.Parking{Max: 1}}
				served := row.change(cluster)
				s := &Server{pool: newPool(), sessions: newTable(0), log: slog.New(slog.DiscardHandler), cluster: func(string) (*Cluster, bool) { return served, served != nil }}
				one := &pooled{key: poolKey{admin: cluster.Admin, upstream: cluster.Upstream}, cluster: &cluster, gone: make(chan struct{}),
					up: &upstream{Conn: session.NewConn(conn, nil)}, since: time.Now()}
				if row.parked == nil {
					one.order = &spareOrder{}
				} else {
					one.origin = &origin{opened: time.Now().Add(-row.parked.age), expires: time.Now().Add(row.parked.valid)}
				}
				s.pool.waiting = []*pooled{one}
				time.Sleep(row.after)
				s.sweepPool(time.Now())
				if ends := len(s.pool.all()) == 0; ends != row.ends {
					t.Errorf("it ends: %t, want %t", ends, row.ends)
				}
				conn.Close()
			})
		})
	}
}
