package gateway_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/test/pgtest"
)

// echoing starts a gateway whose server answers 64 bytes with 64 bytes and a ReadyForQuery, and
// 1 MiB with 1 MiB.
func echoing(b *testing.B, sslmode string) *client {
	b.Helper()
	f := newFixture(b, nil)
	addr, _ := scripted(b, func(conn net.Conn) {
		sends(begun)(conn)
		_ = conn.SetDeadline(noDeadline)
		buf := make([]byte, 32<<10)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if _, err := conn.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	admin := &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", Password: "pw"}}
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: upstreamAt(b, addr)})
	c := f.session(f.grant("alice"), sslmode)
	_ = c.SetDeadline(noDeadline)
	return c
}

// BenchmarkRoundTrip measures one message to the server and one back.
func BenchmarkRoundTrip(b *testing.B) {
	for _, sslmode := range []string{"disable", "require"} {
		b.Run("sslmode="+sslmode, func(b *testing.B) {
			c := echoing(b, sslmode)
			message := slices.Concat(typed('D', make([]byte, 60)), ready)
			answer := make([]byte, len(message))
			for b.Loop() {
				if _, err := c.Write(message); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, answer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStream measures bytes that flow in both directions at once.
func BenchmarkStream(b *testing.B) {
	for _, sslmode := range []string{"disable", "require"} {
		b.Run("sslmode="+sslmode, func(b *testing.B) {
			c := echoing(b, sslmode)
			block := bytes.Repeat(typed('d', make([]byte, 1019)), 1024)
			b.SetBytes(int64(len(block)))
			go func() {
				for {
					if _, err := c.Write(block); err != nil {
						return
					}
				}
			}()
			back := make([]byte, len(block))
			for b.Loop() {
				if _, err := io.ReadFull(c, back); err != nil {
					b.Fatal(err)
				}
			}
			c.Close()
		})
	}
}

// BenchmarkLogon measures a complete logon with TLS, a credential and one query, beside a direct
// logon with SCRAM.
func BenchmarkLogon(b *testing.B) {
	pg := pgtest.Start(b)
	login := pg.Login(b, "direct", "")
	f := newFixture(b, nil)
	f.real(pg)
	g := f.grant(pg.Name("alice"))
	gatewayURL := f.url(g.LogonName(), f.mint(g), "postgres")
	for name, url := range map[string]string{"gateway": gatewayURL, "direct": pg.ConnString(login, "postgres")} {
		b.Run(name, func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					conn, err := pgx.Connect(context.Background(), url)
					if err != nil {
						b.Error(err)
						return
					}
					var one int
					if err := conn.QueryRow(context.Background(), "select 1").Scan(&one); err != nil {
						b.Error(err)
					}
					conn.Close(context.Background())
				}
			})
		})
	}
}
