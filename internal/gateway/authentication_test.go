package gateway_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/pgtest"
)

// TestTargetFloods: a server that never stops sending costs the gateway a bounded number of
// bytes, and the logon ends long before its deadline.
func TestTargetFloods(t *testing.T) {
	notice := typed('N', append([]byte("SNOTICE\x00C00000\x00M"), strings.Repeat("x", 4000)+"\x00\x00"...))
	for _, test := range []struct {
		name  string
		first []byte
		again []byte
	}{
		{"notices before authentication", nil, notice},
		{"protocol versions", nil, typed('v', make([]byte, 8))},
		{"statuses before authentication", nil, typed('S', []byte("a\x00b\x00"))},
		{"statuses", authOK, typed('S', []byte("name\x00"+strings.Repeat("v", 4000)+"\x00"))},
		{"small statuses", authOK, typed('S', []byte("\x00\x00"))},
		{"notices", authOK, notice},
		{"cancel keys", authOK, typed('K', make([]byte, 8))},
		{"one long message", slices.Concat(authOK, []byte{'S'}, be32(1<<30)), make([]byte, 4096)},
		{"one long error", slices.Concat([]byte{'E'}, be32(1<<30)), make([]byte, 4096)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, func(c *gateway.Config) { c.Limits.LogonTimeout = 30 * time.Second })
			var sent atomic.Int64
			over := make(chan struct{})
			addr, _ := scripted(t, func(conn net.Conn) {
				defer close(over)
				_ = conn.(*net.TCPConn).SetWriteBuffer(1 << 16)
				_, err := conn.Write(test.first)
				for err == nil && sent.Load() < 1<<30 {
					var n int
					n, err = conn.Write(test.again)
					sent.Add(int64(n))
				}
			})
			admin := &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", Password: "pw", ServerVersion: 150000}}
			f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: upstreamAt(t, addr)})
			g := f.grant("alice")
			_, err := f.try(g.LogonName(), f.mint(g), "")
			f.refused(err, "08006", "failed")
			<-over
			if n := sent.Load(); n > 16<<20 { // most of it in the kernel's buffers
				t.Errorf("the server could send %d bytes", n)
			}
		})
	}
}

// TestPasswordIsNotGivenAway: the gateway does not send the session role's password to a server
// that asks for it, nor a hash to a server that has not proved that it knows the password.
func TestPasswordIsNotGivenAway(t *testing.T) {
	for _, test := range []struct {
		name    string
		request []byte
		heals   int
	}{
		{"cleartext", typed('R', be32(3)), 0},
		// The holder may have set an MD5 password, so the gateway sets the verifier again, once.
		{"MD5", typed('R', append(be32(5), 1, 2, 3, 4)), 1},
		{"SCRAM, and then cleartext", slices.Concat(typed('R', append(be32(10), "SCRAM-SHA-256\x00\x00"...)), typed('R', be32(3))), 0},
		{"GSSAPI", typed('R', be32(7)), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, nil)
			got := make(chan string, 2)
			addr, _ := scripted(t, func(conn net.Conn) {
				_, _ = conn.Write(test.request)
				answer, _ := io.ReadAll(conn)
				got <- string(answer)
			})
			healed := 0
			admin := &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", Password: "the-password"}}
			admin.heal = func() (dbuser.SessionRole, error) { healed++; return admin.role, nil }
			f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: upstreamAt(t, addr)})
			g := f.grant("alice")
			_, err := f.try(g.LogonName(), f.mint(g), "")
			f.refused(err, "08004", "does not let the gateway")
			for range 1 + test.heals {
				if answer := <-got; strings.Contains(answer, "the-password") || strings.Contains(answer, "md5") {
					t.Errorf("the server was answered %q", answer)
				}
			}
			if healed != test.heals {
				t.Errorf("healed %d times, want %d", healed, test.heals)
			}
			if reason := f.audit.lastLogon(t).Reason; !strings.Contains(reason, "pg_hba.conf") {
				t.Errorf("reason = %q, want what to do", reason)
			}
		})
	}
}

// TestTrust: a server that asks for no password has proved nothing. On the same machine that is
// the operator's choice; anywhere else its certificate must prove its identity.
func TestTrust(t *testing.T) {
	f := newFixture(t, nil)
	addr, _ := scripted(t, func(conn net.Conn) {
		sends(authOK, ready)(conn)
		_, _ = io.Copy(io.Discard, conn)
	})
	admin := &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", Password: "pw"}}
	near, far := upstreamAt(t, addr), upstreamAt(t, addr)
	far.DialFunc = remoteDial(far.DialFunc)
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: near})
	f.session(f.grant("alice"), "disable")
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: far})
	g := f.grant("alice")
	_, err := f.try(g.LogonName(), f.mint(g), "")
	f.refused(err, "08004", "does not let the gateway")
	if reason := f.audit.lastLogon(t).Reason; !strings.Contains(reason, "sslmode=verify-full") {
		t.Errorf("reason = %q, want what to do", reason)
	}
}

// TestErrorsOfTheSession: an error that the start of a session raises, in a login event trigger
// for instance, is passed to the client with any SQLSTATE, and does not make the gateway set the
// password again.
func TestErrorsOfTheSession(t *testing.T) {
	for _, state := range []string{"28000", "28P01", "P0001", "57P03"} {
		f := newFixture(t, nil)
		addr, _ := scripted(t, sends(authOK, fatalMessage(state, "closed on Sundays")))
		admin := &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", Password: "pw"}}
		admin.heal = func() (dbuser.SessionRole, error) { t.Error("healed"); return admin.role, nil }
		f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: upstreamAt(t, addr)})
		g := f.grant("alice")
		_, err := f.try(g.LogonName(), f.mint(g), "")
		f.refused(err, state, "closed on Sundays")
	}
}

// TestSessionRoleMayNotLogIn: the server may report this only after AuthenticationOk. The error
// is still about the gateway's logon, so the client does not get it.
func TestSessionRoleMayNotLogIn(t *testing.T) {
	f := newFixture(t, nil)
	locked := typed('E', []byte("SFATAL\x00VFATAL\x00C28000\x00Mrole \"IAM:alice\" is not permitted to log in\x00RInitializeSessionUserId\x00\x00"))
	addr, _ := scripted(t, sends(authOK, locked))
	admin := &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", Password: "pw"}}
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: upstreamAt(t, addr)})
	g := f.grant("alice")
	_, err := f.try(g.LogonName(), f.mint(g), "")
	f.refused(err, "08004", "does not let the gateway")
}

// TestHolderSetsAnotherVerifier: a holder can give the session role a verifier that is slow to
// compute, or one of another kind. The next logon replaces it.
func TestHolderSetsAnotherVerifier(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, shared *pgtest.Server) {
		pg := shared.StartAlone(t, nil)
		f := newFixture(t, nil)
		f.real(pg)
		g := f.grant(pg.Name("strong"))
		key := strings.Repeat("A", 43) + "="
		changes := []string{
			"ALTER ROLE CURRENT_USER PASSWORD 'SCRAM-SHA-256$200000:c2FsdA==$" + key + ":" + key + "'",
			"ALTER ROLE CURRENT_USER PASSWORD 'mine'",
			"ALTER ROLE CURRENT_USER PASSWORD NULL",
			"ALTER ROLE CURRENT_USER PASSWORD 'md5" + strings.Repeat("a", 32) + "'",
		}
		for _, method := range []string{"scram-sha-256", "md5"} {
			pg.SetHBA(t, method)
			for _, change := range changes {
				conn := f.connect(g, "")
				if _, err := conn.Exec(context.Background(), "SET ROLE NONE"); err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Exec(context.Background(), change); err != nil {
					t.Fatalf("%s: %v", change, err)
				}
				_ = conn.Close(context.Background())
				again := f.connect(g, "")
				if got := value[string](t, again, "SELECT current_user::text"); got != g.DBUser {
					t.Errorf("after %q with %s: current_user = %s", change, method, got)
				}
				_ = again.Close(context.Background())
			}
		}
	})
}

// TestEd25519Certificate: SCRAM has no channel binding for an Ed25519 certificate. That does not
// matter if TLS has verified the certificate; otherwise the reason for the refusal names the
// remedies.
func TestEd25519Certificate(t *testing.T) {
	shared := pgtest.Start(t)
	certificate, key := pgtest.Ed25519Certificate(t)
	file := filepath.Join(t.TempDir(), "server.crt")
	if err := os.WriteFile(file, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	pg := shared.StartAlone(t, nil)
	pg.SecureWith(t, certificate, key)
	f := newFixture(t, nil)
	login := pg.Login(t, "root", "SUPERUSER")
	root := "&sslrootcert=" + file
	for _, test := range []struct {
		settings string
		works    bool
	}{
		{"sslmode=verify-full" + root, true},
		{"sslmode=verify-ca" + root, true},
		{"sslmode=require", false},
		{"sslmode=require&channel_binding=disable", true},
	} {
		config, err := pgx.ParseConfig(strings.Replace(pg.ConnString(login, "postgres"), "sslmode=disable", test.settings, 1))
		if err != nil {
			t.Fatal(err)
		}
		// The administrative login connects separately (internal/adminconn), here in the clear.
		plain, err := pgx.ParseConfig(pg.ConnString(login, "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		admin := handover.New(dbuser.Config{Cluster: "examplecluster", Conn: plain, Key: [32]byte{1}})
		t.Cleanup(admin.Close)
		f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "postgres", Admin: admin, Upstream: &config.Config})
		g := f.grant("alice")
		conn, err := f.try(g.LogonName(), f.mint(g), "")
		if !test.works {
			f.refused(err, "08004", "does not let the gateway")
			if reason := f.audit.lastLogon(t).Reason; !strings.Contains(reason, "Ed25519") || !strings.Contains(reason, "channel_binding=disable") {
				t.Errorf("%s: reason = %q", test.settings, reason)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.settings, err)
			continue
		}
		_ = conn.Close(context.Background())
	}
}

// TestCertificatesOfServers: the driver and the gateway use channel binding with every kind of
// certificate except Ed25519 (TestEd25519Certificate), as PostgreSQL does.
func TestCertificatesOfServers(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pg := pgtest.Start(t).StartAlone(t, nil)
	f := newFixture(t, nil)
	login := pg.Login(t, "root", "SUPERUSER")
	for name, row := range map[string]struct {
		key       crypto.Signer
		algorithm x509.SignatureAlgorithm
	}{
		"RSA":          {rsaKey, x509.SHA256WithRSA},
		"RSA, SHA-384": {rsaKey, x509.SHA384WithRSA},
		"RSA, SHA-512": {rsaKey, x509.SHA512WithRSA},
		"RSA-PSS":      {rsaKey, x509.SHA256WithRSAPSS},
		"P-256":        {ecdsaKey(t, elliptic.P256()), 0},
		"P-384":        {ecdsaKey(t, elliptic.P384()), 0},
		"P-521":        {ecdsaKey(t, elliptic.P521()), 0},
	} {
		certificate, key := pgtest.Certificate(t, row.key, row.algorithm)
		pg.SecureWith(t, certificate, key)
		config, err := pgx.ParseConfig(strings.Replace(pg.ConnString(login, "postgres"), "sslmode=disable", "sslmode=require&channel_binding=require", 1))
		if err != nil {
			t.Fatal(err)
		}
		admin := handover.New(dbuser.Config{Cluster: "examplecluster", Conn: config, Key: [32]byte{1}})
		f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "postgres", Admin: admin, Upstream: &config.Config})
		g := f.grant("alice")
		conn, err := f.try(g.LogonName(), f.mint(g), "")
		if err != nil {
			t.Errorf("%s: %v: %s", name, err, f.audit.lastLogon(t).Reason)
		} else {
			_ = conn.Close(context.Background())
		}
		admin.Close()
	}
}

func ecdsaKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestChannelBindingDowngrade checks the client's first message to a server that offers no
// channel binding.
func TestChannelBindingDowngrade(t *testing.T) {
	state := func(algorithm x509.SignatureAlgorithm) *tls.ConnectionState {
		return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte("certificate"), SignatureAlgorithm: algorithm}}}
	}
	plain, both := []string{"SCRAM-SHA-256"}, []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"}
	rsa, ed := state(x509.SHA256WithRSA), state(x509.PureEd25519)
	for _, test := range []struct {
		name     string
		offered  []string
		state    *tls.ConnectionState
		binding  string
		verified bool
		want     string // the beginning of the client's first message; empty: refused
	}{
		{"no TLS", plain, nil, "prefer", false, "n,,"},
		{"TLS", both, rsa, "prefer", false, "p=tls-server-end-point,,"},
		{"taken away", plain, rsa, "prefer", false, "y,,"},
		{"taken away, verified", plain, rsa, "prefer", true, "y,,"},
		{"taken away, required", plain, rsa, "require", true, ""},
		{"required without TLS", both, nil, "require", false, ""},
		{"disabled", both, rsa, "disable", false, "n,,"},
		{"no hash, verified", both, ed, "prefer", true, "n,,"},
		{"no hash, not verified", both, ed, "prefer", false, ""},
		{"no hash, required", both, ed, "require", true, ""},
		{"no hash, disabled", both, ed, "disable", false, "n,,"},
	} {
		first, err := gateway.SCRAMFirst(test.offered, test.state, test.binding, test.verified)
		if (err == nil) != (test.want != "") || !strings.HasPrefix(first, test.want) {
			t.Errorf("%s: first message %q, %v; want %q", test.name, first, err, test.want)
		}
	}
}

// remoteDial opens connections that appear to lead to another machine.
func remoteDial(dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return remote{conn}, nil
	}
}
