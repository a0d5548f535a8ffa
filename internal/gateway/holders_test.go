package gateway_test

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/test/pgtest"
)

// hanging is a server that reads the first packet of each connection and answers nothing, except that
// sessions begin if it is told so.
type hanging struct {
	sessions bool         // answer start-up messages
	cancels  atomic.Int64 // cancel requests that it got
}

// serve serves until the test ends.
func (h *hanging) serve(t *testing.T) (address string) {
	address, _ = answering(t, func(conn net.Conn, first []byte) {
		switch {
		case isCancel(first):
			h.cancels.Add(1)
		case h.sessions:
			sends(begun)(conn)
		}
		<-t.Context().Done()
	})
	return address
}

// TestHoldersTakeNoPlacesOfStrangers: logons with a valid credential wait for a cluster that hangs.
// There are as many as there are places for strangers, and of one principal no more than it may
// have. Other principals log on to another cluster, and so does the same one once the others are
// gone.
func TestHoldersTakeNoPlacesOfStrangers(t *testing.T) {
	const places = 8
	f := newFixture(t, func(c *gateway.Config) {
		c.Limits.HalfOpen, c.Limits.HalfOpenPerAddress, c.Limits.OpeningPerPrincipal = places, places, places
		c.Limits.LogonTimeout = time.Minute
	})
	f.real(pgtest.Start(t))
	hangs := &hanging{}
	role := dbuser.SessionRole{Name: "IAM:bob", Password: "pw"}
	f.add(&gateway.Cluster{Identifier: "hangs", Database: "dev", Admin: &fakeAdmin{role: role}, Upstream: upstreamAt(t, hangs.serve(t))})
	g := f.to("hangs", "bob")
	g.Principal = "arn:aws:iam::123456789012:user/bob"
	var waiting []*client
	for range places {
		c := f.dialTLS()
		c.send(startup(version30, "user", g.LogonName()))
		c.read(len(askPassword))
		c.send(passwordMessage(f.mint(g)))
		waiting = append(waiting, c)
	}
	pgtest.Eventually(t, "all of them wait for the cluster", func() bool { return f.server.Stats().Opening == places })
	if n := f.server.HalfOpen(); n != 0 {
		t.Errorf("%d of them take places of strangers, want none", n)
	}
	f.connect(f.grant("alice"), "")

	own := f.grant("bob")
	own.Principal = g.Principal
	_, err := f.try(own.LogonName(), f.mint(own), "")
	f.refused(err, "53300", "too many logons with credentials of the same principal are in progress")
	for _, c := range waiting {
		c.Close()
	}
}

// TestCancelRequestsTakeTurns: of the cancel requests for one session that arrive while one is being
// sent, one is sent for all of them, afterwards: the query may have begun after the first was sent.
func TestCancelRequestsTakeTurns(t *testing.T) {
	const requests = 50
	take := gateway.NewCancelTurns()
	began, release := make(chan struct{}), make(chan struct{})
	var sent, now, most atomic.Int64
	send := func() {
		sent.Add(1)
		most.Store(max(most.Load(), now.Add(1)))
		began <- struct{}{}
		<-release
		now.Add(-1)
	}
	results := make(chan bool)
	request := func() { results <- take(send) }
	go request()
	<-began // the first is being sent
	for range requests {
		go request()
	}
	// All but those that wait for the second are answered at once.
	const waiting = 16
	for range requests - waiting {
		if <-results {
			t.Fatal("a request was sent while another was being sent")
		}
	}
	release <- struct{}{}
	<-began // the second is being sent
	release <- struct{}{}
	first := 0
	for range 1 + waiting {
		if <-results {
			first++
		}
	}
	if sent.Load() != 2 || first != 2 || most.Load() != 1 {
		t.Errorf("%d requests were sent, %d at a time, by %d callers; want 2, one at a time", sent.Load(), most.Load(), first)
	}
	go request()
	<-began // a later request is sent again
	release <- struct{}{}
	if !<-results {
		t.Error("a request that arrives later was not sent")
	}
}

// TestCancelRequestsOfAHolder: someone who has a session sends cancel requests for it without end. The
// server gets few of them, and they take no places of strangers while it hangs.
func TestCancelRequestsOfAHolder(t *testing.T) {
	const requests = 50
	f := newFixture(t, nil)
	hangs := &hanging{sessions: true}
	admin := &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", Password: "pw"}}
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: upstreamAt(t, hangs.serve(t))})
	_, pid, key := f.sessionVersion(f.grant("alice"), "verify-full", version30)
	for range requests {
		f.dial().send(packet(80877102, be32(pid), key))
	}
	pgtest.Eventually(t, "most of them are joined", func() bool { return f.server.Stats().Cancels.Joined >= requests/2 })
	pgtest.Eventually(t, "none of them takes the place of a stranger while one is being sent", func() bool {
		ended := f.server.Stats().Cancels
		return f.server.HalfOpen() == 0 && ended.Sent+ended.Failed < uint64(hangs.cancels.Load())
	})
	if n := hangs.cancels.Load(); n > requests/2 {
		t.Errorf("the server got %d of %d cancel requests", n, requests)
	}
}
