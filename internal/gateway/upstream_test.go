package gateway_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/ca"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/pgtest"
)

// stuckAdmin never answers.
type stuckAdmin struct {
	*fakeAdmin
	asked atomic.Bool
}

func (a *stuckAdmin) Ensure(ctx context.Context, _ dbuser.Need) (dbuser.SessionRole, error) {
	a.asked.Store(true)
	<-ctx.Done()
	return dbuser.SessionRole{}, ctx.Err()
}

func upstreamAt(t testing.TB, addrs ...string) *pgconn.Config {
	t.Helper()
	return upstreamTo(t, "sslmode=disable", addrs...)
}

// upstreamTo is upstreamAt with settings of the connection string.
func upstreamTo(t testing.TB, settings string, addrs ...string) *pgconn.Config {
	t.Helper()
	var hosts, ports []string
	for _, addr := range addrs {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	config, err := pgconn.ParseConfig(settings + " host=" + strings.Join(hosts, ",") + " port=" + strings.Join(ports, ","))
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// scripted starts a server that plays the same part in each connection, from the start-up
// message on.
func scripted(t testing.TB, part func(conn net.Conn)) (addr string, connections *atomic.Int32) {
	t.Helper()
	return answering(t, func(conn net.Conn, _ []byte) { part(conn) })
}

// answering starts a server that plays the same part in each connection, after the first packet:
// a start-up message or a cancel request.
func answering(t testing.TB, part func(conn net.Conn, first []byte)) (addr string, connections *atomic.Int32) {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	connections = new(atomic.Int32)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
				head := make([]byte, 4)
				if _, err := io.ReadFull(conn, head); err != nil {
					return
				}
				first := make([]byte, int(head[2])<<8+int(head[3])-4)
				if _, err := io.ReadFull(conn, first); err == nil {
					part(conn, first)
				}
			}()
		}
	}()
	return l.Addr().String(), connections
}

// isCancel reports whether a packet is a cancel request.
func isCancel(first []byte) bool { return bytes.HasPrefix(first, be32(80877102)) }

// begun is what a server sends to begin a session: with process ID 9, and the cancel key 1, 2, 3, 4.
var begun = slices.Concat(authOK, typed('K', []byte{0, 0, 0, 9, 1, 2, 3, 4}), ready)

func sends(messages ...[]byte) func(net.Conn) {
	return func(conn net.Conn) { _, _ = conn.Write(slices.Concat(messages...)) }
}

func fatalMessage(state, text string) []byte {
	return typed('E', []byte("SFATAL\x00VFATAL\x00C"+state+"\x00M"+text+"\x00\x00"))
}

var (
	authOK = typed('R', be32(0))
	ready  = typed('Z', []byte("I"))
)

// TestHostileUpstream: whatever a server answers, the client gets an explanation in time, and no
// harm is done.
func TestHostileUpstream(t *testing.T) {
	hang := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	then := func(b []byte, next func(net.Conn)) func(net.Conn) {
		return func(conn net.Conn) { _, _ = conn.Write(b); next(conn) }
	}
	sasl := func(names ...string) []byte {
		return typed('R', append(be32(10), strings.Join(names, "\x00")+"\x00\x00"...))
	}
	for _, test := range []struct {
		name        string
		part        func(net.Conn)
		state, text string
	}{
		{"hangs up", func(net.Conn) {}, "08006", "failed"},
		{"resets", func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }, "08006", "failed"},
		{"never answers", hang, "08006", "failed"},
		{"hangs up half-way", sends([]byte{'R', 0, 0}), "08006", "failed"},
		{"talks HTTP", sends([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")), "08006", "failed"},
		{"message of length 3", sends([]byte{'R', 0, 0, 0, 3}), "08006", "failed"},
		{"message without end", then(slices.Concat([]byte{'S'}, be32(1<<30)), hang), "08006", "failed"},
		{"unknown message", sends(typed('x', nil)), "08006", "failed"},
		{"ready before it has authenticated", sends(ready), "08006", "failed"},
		{"data before it is ready", sends(authOK, typed('D', []byte{0, 0})), "08006", "failed"},
		{"short authentication", sends(typed('R', nil)), "08006", "failed"},
		{"authenticates twice", sends(authOK, authOK), "08006", "failed"},
		{"Kerberos", sends(typed('R', be32(7))), "08004", "does not let the gateway"},
		{"unknown SASL", sends(sasl("OAUTHBEARER")), "08004", "does not let the gateway"},
		{"SASL out of turn", sends(typed('R', append(be32(11), "r=x"...))), "08004", "does not let the gateway"},
		{"final SASL out of turn", sends(typed('R', append(be32(12), "v=x"...))), "08004", "does not let the gateway"},
		{"SASL twice", sends(sasl("SCRAM-SHA-256"), sasl("SCRAM-SHA-256")), "08004", "does not let the gateway"},
		{"SCRAM cut short", sends(sasl("SCRAM-SHA-256"), authOK), "08004", "does not let the gateway"},
		{"SCRAM with a nonce of its own", sends(sasl("SCRAM-SHA-256"), typed('R', append(be32(11), "r=x,s=c2FsdA==,i=1"...))), "08004", "does not let the gateway"},
		{"cancel key too long", sends(authOK, typed('K', make([]byte, 300))), "08006", "failed"},
		{"too many connections", sends(fatalMessage("53300", "sorry, too many clients already")), "53300", "sorry, too many clients already"},
		{"starting up", sends(fatalMessage("57P03", "the database system is starting up")), "57P03", "starting up"},
		{"no CONNECT", sends(authOK, fatalMessage("42501", `permission denied for database "dev"`)), "42501", "permission denied"},
		{"no pg_hba.conf entry", sends(fatalMessage("28000", `no pg_hba.conf entry for host "10.9.8.7"`)), "08004", "does not let the gateway"},
		{"password refused, and refused again", sends(fatalMessage("28P01", "password authentication failed")), "08004", "does not let the gateway"},
		{"error without fields", sends(typed('E', []byte{0})), "08006", "failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			limit := time.Minute
			if strings.HasPrefix(test.name, "never ") || test.name == "message without end" {
				limit = 4 * time.Second
			}
			f := newFixture(t, func(c *gateway.Config) { c.Limits.LogonTimeout = limit })
			addr, _ := scripted(t, test.part)
			admin := &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", Password: "pw", ServerVersion: 150000}}
			f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: upstreamAt(t, addr)})
			g := f.grant("alice")
			_, err := f.try(g.LogonName(), f.mint(g), "")
			pg := f.refused(err, test.state, test.text)
			if strings.Contains(pg.Message, "10.9.8.7") || strings.Contains(pg.Message, addr) {
				t.Errorf("the client is told %q", pg.Message)
			}
			if record := f.audit.lastLogon(t); record.SQLState != test.state || record.Reason == "" {
				t.Errorf("record = %+v", record)
			}
			if n := len(f.server.Sessions()); n != 0 {
				t.Errorf("%d sessions, want none", n)
			}
		})
	}
}

// TestHosts: the session goes to the first host that accepts it.
func TestHosts(t *testing.T) {
	const closed = "127.0.0.1:1"
	full, _ := scripted(t, sends(fatalMessage("53300", "sorry, too many clients already")))
	starting, _ := scripted(t, sends(fatalMessage("57P03", "the database system is starting up")))
	good := func(standby, readOnly string) string {
		addr, _ := scripted(t, func(conn net.Conn) {
			sends(authOK, typed('S', []byte("in_hot_standby\x00"+standby+"\x00")), typed('S', []byte("default_transaction_read_only\x00"+readOnly+"\x00")),
				typed('S', []byte("server_version\x0015.1\x00")), typed('K', []byte{0, 0, 0, 9, 1, 2, 3, 4}), ready)(conn)
			_, _ = io.Copy(io.Discard, conn)
		})
		return addr
	}
	primary, standby := good("off", "off"), good("on", "off")
	noDatabase, asked := scripted(t, sends(fatalMessage("3D000", "no such database")))
	for _, test := range []struct {
		name  string
		hosts []string
		attrs string
		state string // empty: the logon succeeds
		want  string
	}{
		{"second", []string{closed, primary}, "", "", primary},
		{"third", []string{full, starting, primary}, "", "", primary},
		{"none", []string{closed, full}, "", "08001", ""},
		{"one that does not know of the database yet", []string{noDatabase, primary}, "", "", primary},
		{"none that knows of it", []string{closed, full, noDatabase}, "", "3D000", ""},
		{"the one that answers does not know of it", []string{noDatabase, full, starting}, "", "3D000", ""},
		{"read-write", []string{standby, primary}, "read-write", "", primary},
		{"primary", []string{standby, primary}, "primary", "", primary},
		{"standby", []string{primary, standby}, "standby", "", standby},
		{"read-only", []string{primary, standby}, "read-only", "", standby},
		{"prefer-standby", []string{primary, standby}, "prefer-standby", "", standby},
		{"prefer-standby without one", []string{primary}, "prefer-standby", "", primary},
		{"no primary", []string{standby}, "primary", "08006", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, nil)
			admin := &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", Password: "pw"}}
			var reached []string
			config := upstreamAt(t, test.hosts...)
			dial := config.DialFunc
			config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				reached = append(reached, addr)
				return dial(ctx, network, addr)
			}
			f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: config, TargetSessionAttrs: test.attrs})
			g := f.grant("alice")
			_, err := f.try(g.LogonName(), f.mint(g), "")
			if test.state != "" {
				f.refused(err, test.state, "")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := reached[len(reached)-1]; got != test.want {
				t.Errorf("session at %s, want %s", got, test.want)
			}
		})
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("the host without the database was asked %d times, want once in each test", n)
	}
}

// TestHealOnce: if the server refuses the password, the gateway sets it again once, not over and
// over.
func TestHealOnce(t *testing.T) {
	f := newFixture(t, nil)
	addr, asked := scripted(t, sends(fatalMessage("28P01", "password authentication failed")))
	healed := 0
	admin := &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", Password: "pw"}}
	admin.heal = func() (dbuser.SessionRole, error) { healed++; return admin.role, nil }
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: upstreamAt(t, addr)})
	g := f.grant("alice")
	_, err := f.try(g.LogonName(), f.mint(g), "")
	f.refused(err, "08004", "")
	if healed != 1 || asked.Load() != 2 {
		t.Errorf("healed %d times, asked %d times, want 1 and 2", healed, asked.Load())
	}
}

// TestServerWithoutInterval: a platform without client_connection_check_interval still gets
// sessions.
func TestServerWithoutInterval(t *testing.T) {
	f := newFixture(t, nil)
	var asked atomic.Int32
	addr, _ := scripted(t, func(conn net.Conn) {
		if asked.Add(1) == 1 {
			sends(authOK, fatalMessage("22023", "client_connection_check_interval must be set to 0 on this platform"))(conn)
			return
		}
		sends(authOK, ready)(conn)
		_, _ = io.Copy(io.Discard, conn)
	})
	admin := &fakeAdmin{role: dbuser.SessionRole{Name: "IAM:alice", Password: "pw", ServerVersion: 150000}}
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "dev", Admin: admin, Upstream: upstreamAt(t, addr)})
	// The server sent no cancel key, so the client gets none.
	c, pid, key := f.sessionVersion(f.grant("alice"), "verify-full", version30)
	if pid != 0 || key != nil {
		t.Errorf("cancel key %d %x, want none", pid, key)
	}
	c.Close()
}

// TestUpstreamTLS: connections to the database, those for cancel requests included, use verified
// TLS with channel binding. A certificate of someone else is refused.
func TestUpstreamTLS(t *testing.T) {
	shared := pgtest.Start(t)
	if newest := pgtest.Versions(); len(newest) > 0 { // the newest version has the features of 17
		shared = pgtest.StartVersion(t, strconv.Itoa(newest[0].Major))
	}
	dir := t.TempDir()
	authority, err := ca.Open(dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	pg := shared.StartAlone(t, nil)
	var pems [2][]byte
	for i, name := range []string{"server.crt", "server.key"} {
		if pems[i], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	pg.SecureWith(t, pems[0], pems[1])
	f := newFixture(t, nil)
	login := pg.Login(t, "root", "SUPERUSER")
	parse := func(settings string) *pgx.ConnConfig {
		t.Helper()
		config, err := pgx.ParseConfig(strings.Replace(pg.ConnString(login, "postgres"), "sslmode=disable", settings, 1))
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
	super := pgtest.Connect(t, pg.Superuser("postgres"))
	root := "&sslrootcert=" + authority.CertificateFile()
	admin := handover.New(dbuser.Config{Cluster: "examplecluster", Conn: parse("sslmode=verify-full" + root), Key: [32]byte{1}})
	t.Cleanup(admin.Close)
	settings := []string{"sslmode=verify-full" + root, "sslmode=verify-ca" + root, "sslmode=require", "sslmode=prefer"}
	if pg.Major() >= 17 {
		settings = append(settings, "sslmode=verify-full&sslnegotiation=direct"+root)
	}
	for _, setting := range settings {
		f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "postgres", Admin: admin, Upstream: &parse(setting).Config})
		for _, sslmode := range []string{"verify-full", "disable"} {
			conn := f.connect(f.grant("alice"), "", "sslmode", sslmode)
			if !value[bool](t, super, "SELECT ssl FROM pg_stat_ssl WHERE pid = $1", conn.PgConn().PID()) {
				t.Errorf("%s: no TLS to the database", setting)
			}
			if got := len(value[string](t, conn, "SELECT repeat('x', 3000000)")); got != 3000000 {
				t.Errorf("%s: %d bytes", setting, got)
			}
			if got := value[int](t, conn, "SELECT length($1)", strings.Repeat("y", 3000000)); got != 3000000 {
				t.Errorf("%s: %d bytes", setting, got)
			}
			done := make(chan error, 1)
			go func() {
				_, err := conn.Exec(context.Background(), "SELECT pg_sleep(60)")
				done <- err
			}()
			pgtest.Eventually(t, "the query runs", func() bool {
				return value[bool](t, super, "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1", conn.PgConn().PID())
			})
			if err := conn.PgConn().CancelRequest(context.Background()); err != nil {
				t.Error(err)
			}
			err := <-done
			if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "57014" {
				t.Errorf("%s: cancelled query = %v", setting, err)
			}
			conn.Close(context.Background())
		}
	}
	stranger, err := ca.Open(t.TempDir(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "postgres", Admin: admin,
		Upstream: &parse("sslmode=verify-full&sslrootcert=" + stranger.CertificateFile()).Config})
	g := f.grant("alice")
	_, err = f.try(g.LogonName(), f.mint(g), "")
	f.refused(err, "08001", "cannot be reached")
}

// TestClientCertificate: with sslcertmode=require a session is opened only if the server asks
// for the client certificate and receives it.
func TestClientCertificate(t *testing.T) {
	dir := t.TempDir()
	authority, err := ca.Open(dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	pg := pgtest.Start(t).StartAlone(t, nil)
	var pems [2][]byte
	for i, name := range []string{"server.crt", "server.key"} {
		if pems[i], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	pg.SecureWith(t, pems[0], pems[1])
	// The client's certificate is self-signed, and the server trusts only that one.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "daypass"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
	for name, data := range map[string][]byte{"client.crt": certificate, "client.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	login := pg.Login(t, "root", "SUPERUSER")
	parse := func(settings string) *pgx.ConnConfig {
		t.Helper()
		config, err := pgx.ParseConfig(strings.Replace(pg.ConnString(login, "postgres"), "sslmode=disable", settings, 1))
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
	f := newFixture(t, nil)
	admin := handover.New(dbuser.Config{Cluster: "examplecluster", Conn: parse("sslmode=require"), Key: [32]byte{1}})
	t.Cleanup(admin.Close)
	shown := "sslmode=verify-full&sslrootcert=" + authority.CertificateFile() + "&sslcert=" + filepath.Join(dir, "client.crt") + "&sslkey=" + filepath.Join(dir, "client.key")
	try := func(settings string, ok bool) {
		t.Helper()
		f.add(&gateway.Cluster{Identifier: "examplecluster", Database: "postgres", Admin: admin, Upstream: &parse(settings).Config})
		g := f.grant("alice")
		conn, err := f.try(g.LogonName(), f.mint(g), "")
		switch {
		case !ok:
			f.refused(err, "08001", "cannot be reached")
		case err != nil:
			t.Errorf("%s: %v", settings, err)
		default:
			conn.Close(context.Background())
		}
	}
	try(shown, true)
	try(shown+"&sslcertmode=require", false) // the server does not ask
	try("sslmode=disable&sslcertmode=require", false)

	super := pgtest.Connect(t, pg.Superuser("postgres"))
	file := value[string](t, super, "SELECT current_setting('data_directory') || '/clients.crt'")
	for _, sql := range []string{
		"COPY (SELECT unnest(string_to_array('" + strings.TrimSpace(string(certificate)) + "', E'\\n'))) TO '" + file + "'",
		"ALTER SYSTEM SET ssl_ca_file = '" + file + "'", "SELECT pg_reload_conf()",
	} {
		if _, err := super.Exec(context.Background(), sql); err != nil {
			t.Fatal(err)
		}
	}
	pgtest.Eventually(t, "the server to have read its configuration", func() bool {
		return value[string](t, pgtest.Connect(t, pg.Superuser("postgres")), "SHOW ssl_ca_file") == file
	})
	try(shown+"&sslcertmode=require", true)
	try("sslmode=require&sslcertmode=require", false) // the server asks, and the client has no certificate
}

// TestUnixSocket connects to the database through a Unix socket.
func TestUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "daypass-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	pg := pgtest.Start(t)
	f := newFixture(t, nil)
	cluster := f.real(pg)
	// A Unix socket of the test that leads to the server.
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(pg.Port())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", net.JoinHostPort(pg.Host(), strconv.Itoa(pg.Port())))
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(to, from); _ = to.(*net.TCPConn).CloseWrite() }()
			go func() { _, _ = io.Copy(from, to); _ = from.(*net.UnixConn).CloseWrite() }()
		}
	}()
	config, err := pgconn.ParseConfig("host=" + dir + " port=" + strconv.Itoa(pg.Port()))
	if err != nil {
		t.Fatal(err)
	}
	f.add(&gateway.Cluster{Identifier: "examplecluster", Database: cluster.Database, Admin: cluster.Admin, Upstream: config})
	conn := f.connect(f.grant(pg.Name("alice")), "")
	if got := len(value[string](t, conn, "SELECT repeat('x', 3000000)")); got != 3000000 {
		t.Errorf("%d bytes", got)
	}
}

// TestPlainRelay relays a session over connections that have no file descriptor.
func TestPlainRelay(t *testing.T) {
	both(t, func(t *testing.T, sslmode string) {
		pg := pgtest.Start(t)
		f := newFixture(t, nil)
		cluster := f.real(pg)
		config := *cluster.Upstream
		dial := config.DialFunc
		config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return opaque{conn}, err
		}
		f.add(&gateway.Cluster{Identifier: "examplecluster", Database: cluster.Database, Admin: cluster.Admin, Upstream: &config})
		f.addr = f.serve(opaqueListener{listen(t)})
		_, f.port, _ = net.SplitHostPort(f.addr)
		conn := f.connect(f.grant(pg.Name("alice")), "", "sslmode", sslmode)
		if got := len(value[string](t, conn, "SELECT repeat($1, 3000000)", "x")); got != 3000000 {
			t.Errorf("%d bytes", got)
		}
		f.server.Kill(f.server.Sessions()[0].ID)
		pgtest.Eventually(t, "the session ends", func() bool { return len(f.server.Sessions()) == 0 })
	})
}

type opaque struct{ net.Conn }

type opaqueListener struct{ net.Listener }

func (l opaqueListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return opaque{conn}, nil
}
