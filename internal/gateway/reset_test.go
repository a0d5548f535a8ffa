package gateway_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/session"
)

// resetAnswers is what a scripted server answers to a reset: to DISCARD ALL, and to the query that proves it.
type resetAnswers struct {
	discarded []byte
	rows      []string
	end       []byte
}

func (a resetAnswers) bytes() []byte {
	out := slices.Clone(a.discarded)
	for _, row := range a.rows {
		out = append(out, typed('D', slices.Concat([]byte{0, 1}, be32(uint32(len(row))), []byte(row)))...)
	}
	return append(out, a.end...)
}

var nonceOf = regexp.MustCompile(`\('([A-Z2-7]{26})'::pg_catalog\.text\)`)

// TestResetIsProven: a session is parked only if every value of the proof is what it has to be, and the
// server has sent nothing else.
func TestResetIsProven(t *testing.T) {
	const role, version = "IAM:alice:analysts", "15.18"
	complete := typed('C', []byte("X\x00"))
	var alter atomic.Pointer[func(*resetAnswers)]
	var values atomic.Int32
	addr, _ := scripted(t, func(conn net.Conn) {
		sends(authOK, typed('S', []byte("server_version\x00"+version+"\x00")), typed('K', []byte{0, 0, 0, 9, 1, 2, 3, 4}), ready)(conn)
		for {
			head := make([]byte, 5)
			if _, err := io.ReadFull(conn, head); err != nil || head[0] != 'Q' {
				return
			}
			query := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
			if _, err := io.ReadFull(conn, query); err != nil {
				return
			}
			if strings.HasPrefix(string(query), "DISCARD ALL") {
				continue // answered with the next query, which is sent at once
			}
			rows := []string{nonceOf.FindStringSubmatch(string(query))[1], role, role, version, ""}
			for range strings.Count(string(query), "((EXISTS (") {
				rows = append(rows, "false")
			}
			values.Store(int32(len(rows)))
			a := resetAnswers{slices.Concat(complete, ready), rows, slices.Concat(complete, ready)}
			(*alter.Load())(&a)
			sends(a.bytes())(conn)
		}
	})
	f := newFixture(t, nil)
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Upstream: upstreamAt(t, addr), Parking: session.Parking{Max: 5},
		Admin: &fakeAdmin{role: dbuser.SessionRole{Name: role, Password: "pw", Seen: [32]byte{1}}}})
	g := f.grant("alice", "analysts")
	parks := func(change func(*resetAnswers)) bool {
		t.Helper()
		alter.Store(&change)
		parked := f.leaves(f.connect(g, "")) > 0
		f.server.KillWhere(func(*gateway.Session) bool { return true })
		return parked
	}
	if !parks(func(*resetAnswers) {}) {
		t.Fatalf("not parked with the right answers: %s", f.log)
	}
	changes := map[string]func(*resetAnswers){
		"a row less":                func(a *resetAnswers) { a.rows = a.rows[:len(a.rows)-1] },
		"a setting of the session":  func(a *resetAnswers) { a.rows = append(a.rows, "session") },
		"a setting that came later": func(a *resetAnswers) { a.rows = append(a.rows, "database") },
		"a transaction":             func(a *resetAnswers) { a.end = slices.Concat(complete, typed('Z', []byte("T"))) },
		"bytes after the answer":    func(a *resetAnswers) { a.end = slices.Concat(complete, ready, typed('N', []byte("SNOTICE\x00\x00"))) },
		"a refusal":                 func(a *resetAnswers) { a.rows, a.end = nil, slices.Concat(fatalMessage("42501", "no"), ready) },
		"a transaction after DISCARD ALL": func(a *resetAnswers) {
			a.discarded = slices.Concat(complete, typed('Z', []byte("T")))
		},
		"a row of DISCARD ALL": func(a *resetAnswers) {
			a.discarded = slices.Concat(typed('D', slices.Concat([]byte{0, 1}, be32(1), []byte("x"))), complete, ready)
		},
	}
	for i := range int(values.Load()) {
		changes[fmt.Sprint("value ", i)] = func(a *resetAnswers) { a.rows[i] = "other" }
	}
	for name, change := range changes {
		if parks(change) {
			t.Errorf("%s: parked", name)
		}
	}
	if n := values.Load(); n < 15 {
		t.Errorf("the proof has %d values", n)
	}
}
