package gateway

import (
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/session"
)

// TestDiscardWaitsForThoseThatLeave: a spare that was discarded without waiting still has its
// connection in the server. A logon that finds no free connection waits for that one, too.
func TestDiscardWaitsForThoseThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, server := net.Pipe()
		key := spareKey{role: "IAM:alice"}
		one := &spare{id: "one", up: &upstream{Conn: session.NewConn(conn, nil)}, order: &spareOrder{key: key}, timer: time.NewTimer(time.Hour)}
		p := newSpares(&Server{})
		p.waiting[key] = []*spare{one}
		p.clusters[key.admin] = &spareCluster{held: 1}
		if !p.kill("one") {
			t.Fatal("there is no spare")
		}
		closed := false
		go func() {
			terminate := make([]byte, 5)
			_, _ = io.ReadFull(server, terminate)
			time.Sleep(time.Second)
			closed = true
			server.Close()
		}()
		if n := p.discard(nil, time.Minute, everySpare); n != 1 || !closed {
			t.Errorf("discard() = %d, want 1; the server has closed it: %v", n, closed)
		}
		if n := p.discard(nil, time.Minute, everySpare); n != 0 {
			t.Errorf("discard() = %d once all are gone, want 0", n)
		}
	})
}

// parkedAdmin counts the clean-ups.
type parkedAdmin struct {
	Admin
	ended atomic.Int32
}

func (a *parkedAdmin) SessionEnded(string, *dbuser.Backend) { a.ended.Add(1) }

// TestRoomOfParkedSessions: a server takes three seconds to close a parked session. A logon that finds no
// free connection waits for that, and also if the session was already ending. The clean-up does not.
func TestRoomOfParkedSessions(t *testing.T) {
	for name, before := range map[string]func(*Server){
		"parked": func(*Server) {},
		"ending": func(s *Server) {
			for _, p := range s.parked.take(func(*parked) bool { return true }) {
				go s.endParked(p, false)
			}
			synctest.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, server := net.Pipe()
				admin := &parkedAdmin{}
				s := &Server{parked: newLot(), log: slog.New(slog.DiscardHandler), cluster: func(string) (*Cluster, bool) { return nil, false }}
				s.spares = newSpares(&Server{sessions: newTable(0)})
				p := &parked{up: &upstream{Conn: session.NewConn(conn, nil)}, cluster: &Cluster{Identifier: "examplecluster", Admin: admin}}
				p.origin.key.admin = admin
				s.parked.sessions = []*parked{p}
				closed := false
				go func() {
					terminate := make([]byte, 5)
					_, _ = io.ReadFull(server, terminate)
					time.Sleep(spareParting + time.Millisecond)
					synctest.Wait()
					if n := admin.ended.Load(); n != 1 {
						t.Errorf("%d clean-ups while the server takes its time, want 1", n)
					}
					time.Sleep(2 * time.Second)
					closed = true
					server.Close()
				}()
				before(s)
				if n := s.makeRoom(admin, sparePatience); n != 1 || !closed {
					t.Errorf("makeRoom() = %d, want 1; the server has closed the session: %v", n, closed)
				}
				synctest.Wait()
				if n := s.makeRoom(admin, sparePatience); n != 0 {
					t.Errorf("makeRoom() = %d when nothing is parked, want 0", n)
				}
			})
		})
	}
}
