package gateway_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/pgtest"
)

// between is a man in the middle: it terminates TLS with its own certificate, and relays to the
// server over its own TLS. change may alter the server's first messages.
func between(t testing.TB, pg *pgtest.Server, change func(first []byte) []byte) (addr string) {
	t.Helper()
	certificate, key := pgtest.Certificate(t, ecdsaKey(t, elliptic.P256()), 0)
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	serve := func(conn net.Conn) {
		defer conn.Close()
		if _, err := io.CopyN(io.Discard, conn, 8); err != nil { // SSLRequest
			return
		}
		_, _ = conn.Write([]byte("S"))
		near := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}})
		raw, err := net.Dial("tcp", net.JoinHostPort(pg.Host(), strconv.Itoa(pg.Port())))
		if err != nil {
			return
		}
		defer raw.Close()
		_, _ = raw.Write(sslRequest)
		if _, err := io.CopyN(io.Discard, raw, 1); err != nil {
			return
		}
		far := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
		go func() { _, _ = io.Copy(far, near) }()
		head := make([]byte, 5)
		if _, err := io.ReadFull(far, head); err != nil {
			return
		}
		body := make([]byte, int(head[3])<<8|int(head[4])-4)
		if _, err := io.ReadFull(far, body); err != nil {
			return
		}
		_, _ = near.Write(change(append(head, body...)))
		_, _ = io.Copy(near, far)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return l.Addr().String()
}

// TestManInTheMiddle: a man in the middle, whose certificate the gateway does not verify, gets
// neither a session nor the administrative login.
func TestManInTheMiddle(t *testing.T) {
	certificate, key := pgtest.Certificate(t, ecdsaKey(t, elliptic.P256()), 0)
	pg := pgtest.Start(t).StartAlone(t, nil)
	pg.SecureWith(t, certificate, key)
	login := pg.Login(t, "root", "SUPERUSER")
	config := func(addr string) *pgx.ConnConfig {
		t.Helper()
		_, port, _ := net.SplitHostPort(addr)
		text := strings.Replace(pg.ConnString(login, "postgres"), "sslmode=disable", "sslmode=require", 1)
		c, err := pgx.ParseConfig(strings.Replace(text, ":"+strconv.Itoa(pg.Port()), ":"+port, 1))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	strip := func(first []byte) []byte {
		names := bytes.Replace(first[5:], []byte("SCRAM-SHA-256-PLUS\x00"), nil, 1)
		return typed('R', names)
	}
	for name, change := range map[string]func([]byte) []byte{
		"passes everything on":            func(first []byte) []byte { return first },
		"takes channel binding away":      strip,
		"asks for a cleartext password":   func([]byte) []byte { return askPassword },
		"asks for an MD5 password":        func([]byte) []byte { return typed('R', append(be32(5), 1, 2, 3, 4)) },
		"asks for no password, elsewhere": func([]byte) []byte { return authOK },
	} {
		t.Run(name, func(t *testing.T) {
			addr := between(t, pg, change)
			f := newFixture(t, nil)
			direct := handover.New(dbuser.Config{Cluster: "examplecluster", Conn: config(net.JoinHostPort(pg.Host(), strconv.Itoa(pg.Port()))), Key: [32]byte{1}})
			t.Cleanup(direct.Close)
			upstream := config(addr)
			far := upstream.Copy()
			if strings.Contains(name, "elsewhere") {
				far.DialFunc = remoteDial(far.DialFunc)
			}
			f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "postgres", Admin: direct, Upstream: &far.Config})
			g := f.grant("alice")
			_, err := f.try(g.LogonName(), f.mint(g), "")
			f.refused(err, "08004", "does not let the gateway")
			if strings.Contains(name, "elsewhere") {
				return // the administrative login's driver decides by the host name, which is local here
			}
			admin := handover.New(dbuser.Config{Cluster: "examplecluster", Conn: upstream, Key: [32]byte{1}})
			t.Cleanup(admin.Close)
			_, err = admin.Ensure(t.Context(), dbuser.Need{User: "alice", AutoCreate: true})
			if !errors.Is(err, adminconn.ErrRights) {
				t.Errorf("the administrative login: %v, want %v", err, adminconn.ErrRights)
			}
		})
	}
}
