package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/ca"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/test/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const principal = "arn:aws:iam::123456789012:user/ana"

// fixture is a gateway with a clock, an audit log in memory and clusters.
type fixture struct {
	t      testing.TB
	keys   *keyring.Keyring
	server *gateway.Server
	ca     *ca.Authority
	addr   string
	host   string
	port   string
	ahead  atomic.Int64 // how much the clock of the gateway is ahead
	audit  *auditLog
	log    *pgtest.Log

	mu       sync.Mutex
	clusters map[string]*gateway.Cluster
}

// newFixture starts a gateway. adjust may be nil.
func newFixture(t testing.TB, adjust func(*gateway.Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, keys: keyring.New(time.Now().Add(-2 * time.Hour)), audit: &auditLog{}, log: &pgtest.Log{}, clusters: map[string]*gateway.Cluster{}}
	authority, err := ca.Open(t.TempDir(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.ca = authority
	config := gateway.Config{
		TLS:     &tls.Config{GetCertificate: authority.GetCertificate},
		Cluster: f.cluster,
		Check: func(password string) (credential.Grant, error) {
			return credential.Check(f.keys.Verifier(), password, f.now())
		},
		Audit: f.audit,
		Now:   f.now,
		Log:   slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if adjust != nil {
		adjust(&config)
	}
	if f.server, err = gateway.New(config); err != nil {
		t.Fatal(err)
	}
	f.addr = f.serve(listen(t))
	f.host, f.port, _ = net.SplitHostPort(f.addr)
	return f
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve serves one more listener until the test ends.
func (f *fixture) serve(l net.Listener) string {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.server.Serve(ctx, l) }()
	f.t.Cleanup(func() {
		over, stop := context.WithCancel(context.Background())
		stop()
		_ = f.server.Shutdown(over) // the test is over
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("Serve() = %v", err)
		}
	})
	return l.Addr().String()
}

func (f *fixture) now() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) }

func (f *fixture) cluster(identifier string) (*gateway.Cluster, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.clusters[identifier]
	return c, ok
}

// add adds a cluster.
func (f *fixture) add(c *gateway.Cluster) *gateway.Cluster {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clusters[c.Identifier] = c
	return c
}

// remove removes a cluster.
func (f *fixture) remove(c *gateway.Cluster) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.clusters, c.Identifier)
}

// real points "examplecluster" at a database server, administered by a superuser, with a new
// default database.
func (f *fixture) real(pg *pgtest.Server) *gateway.Cluster {
	f.t.Helper()
	login := pg.Login(f.t, "root", "SUPERUSER")
	config, err := pgx.ParseConfig(pg.ConnString(login, "postgres"))
	if err != nil {
		f.t.Fatal(err)
	}
	// Tests share the server, so roles of the same name must have the same password.
	admin := handover.New(dbuser.Config{Cluster: "examplecluster", Conn: config, Key: [32]byte{4, 5, 6}})
	f.t.Cleanup(admin.Close)
	return f.add(&gateway.Cluster{Identifier: "examplecluster", Database: pg.Database(f.t), Admin: admin, Upstream: &config.Config})
}

// grant returns a valid grant for user in "examplecluster", for any database.
func (f *fixture) grant(user string, groups ...string) credential.Grant {
	now := f.now().Truncate(time.Second)
	return credential.Grant{ID: credential.NewID(), Cluster: "examplecluster", DBUser: user, DBGroups: groups, AutoCreate: true,
		Principal: principal, IssuedAt: now, NotAfter: now.Add(15 * time.Minute)}
}

func (f *fixture) mint(g credential.Grant) string {
	f.t.Helper()
	password, err := credential.Mint(f.keys, g)
	if err != nil {
		f.t.Fatal(err)
	}
	return password.Reveal()
}

// url returns the connection URL for a client. Empty parts are left out.
func (f *fixture) url(user, password, database string, settings ...string) string {
	query := url.Values{"sslmode": {"verify-full"}, "sslrootcert": {f.ca.CertificateFile()}, "connect_timeout": {"60"}}
	for i := 0; i < len(settings); i += 2 {
		query.Set(settings[i], settings[i+1])
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: "localhost:" + f.port, Path: "/" + database, RawQuery: query.Encode()}
	return u.String()
}

// connect logs on, or fails the test.
func (f *fixture) connect(g credential.Grant, database string, settings ...string) *pgx.Conn {
	f.t.Helper()
	conn, err := f.try(g.LogonName(), f.mint(g), database, settings...)
	if err != nil {
		f.t.Fatalf("logging on: %v", err)
	}
	return conn
}

// try logs on.
func (f *fixture) try(user, password, database string, settings ...string) (*pgx.Conn, error) {
	conn, err := pgx.Connect(context.Background(), f.url(user, password, database, settings...))
	if err == nil {
		f.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	}
	return conn, err
}

// refused fails unless the logon fails with this SQLSTATE and text.
func (f *fixture) refused(err error, state, text string) *pgconn.PgError {
	f.t.Helper()
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		f.t.Fatalf("logging on = %v, want SQLSTATE %s", err, state)
	}
	if pg.Code != state || !strings.Contains(pg.Message, text) {
		f.t.Errorf("refused with %s %q, want %s %q", pg.Code, pg.Message, state, text)
	}
	if pg.Severity != "FATAL" {
		f.t.Errorf("severity = %s, want FATAL", pg.Severity)
	}
	return pg
}

func value[T any](t testing.TB, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// auditLog keeps records in memory, or refuses them.
type auditLog struct {
	mu     sync.Mutex
	logons []audit.LogonRecord
	ends   []audit.SessionRecord
	broken error
}

func (a *auditLog) Logon(r *audit.LogonRecord) (size int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken != nil {
		return 0, a.broken
	}
	a.logons = append(a.logons, *r)
	return r.Size(), nil
}

func (a *auditLog) SessionEnd(r *audit.SessionRecord) (size int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken != nil {
		return 0, a.broken
	}
	a.ends = append(a.ends, *r)
	return 500, nil // about the length of a line
}

func (a *auditLog) setBroken(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.broken = err
}

func (a *auditLog) lastLogon(t testing.TB) audit.LogonRecord {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.logons) == 0 {
		t.Fatal("no logon was recorded")
	}
	return a.logons[len(a.logons)-1]
}

// end waits for the record of a session's end.
func (a *auditLog) end(t testing.TB, session string) audit.SessionRecord {
	t.Helper()
	var found audit.SessionRecord
	pgtest.Eventually(t, "record of the session's end", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, r := range a.ends {
			if r.SessionID == session {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

func (a *auditLog) count() (logons, ends int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.logons), len(a.ends)
}

// fakeAdmin reports that every session role exists.
type fakeAdmin struct {
	role  dbuser.SessionRole
	err   error
	heal  func() (dbuser.SessionRole, error)
	mu    sync.Mutex
	needs []dbuser.Need
	left  []*dbuser.Backend
}

func (a *fakeAdmin) Ensure(_ context.Context, need dbuser.Need) (dbuser.SessionRole, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.needs = append(a.needs, need)
	return a.role, a.err
}

func (a *fakeAdmin) Seen(context.Context, dbuser.Need) ([sha256.Size]byte, error) {
	return a.role.Seen, a.err
}

func (a *fakeAdmin) Heal(context.Context, dbuser.Need) (dbuser.SessionRole, error) {
	if a.heal != nil {
		return a.heal()
	}
	return a.role, a.err
}

func (a *fakeAdmin) Opened(string) {}

func (a *fakeAdmin) DatabasesInDemand(context.Context) ([]string, error) { return nil, nil }

func (a *fakeAdmin) SessionRevoked(role string, left *dbuser.Backend) {
	a.SessionEnded(role, left)
}

func (a *fakeAdmin) SessionEnded(_ string, left *dbuser.Backend) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = append(a.left, left)
}

// client is a client of the raw protocol.
type client struct {
	net.Conn
	t testing.TB
}

func (f *fixture) dial() *client {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute)) // instead of hanging
	return &client{conn, f.t}
}

// dialTLS asks for TLS with an SSLRequest.
func (f *fixture) dialTLS() *client {
	f.t.Helper()
	c := f.dial()
	c.send(sslRequest)
	if got := c.read(1); got != "S" {
		f.t.Fatalf("answer to SSLRequest = %q, want S", got)
	}
	return f.secure(c, nil)
}

func (f *fixture) secure(c *client, protocols []string) *client {
	f.t.Helper()
	conn := tls.Client(c.Conn, f.clientTLS(protocols))
	if err := conn.Handshake(); err != nil {
		f.t.Fatalf("TLS handshake: %v", err)
	}
	return &client{conn, f.t}
}

func (f *fixture) clientTLS(protocols []string) *tls.Config {
	return &tls.Config{RootCAs: f.pool(), ServerName: "localhost", NextProtos: protocols}
}

func (f *fixture) pool() *x509.CertPool { return f.ca.Pool() }

func (c *client) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatalf("sending: %v", err)
	}
}

func (c *client) read(n int) string {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c.Conn, b); err != nil {
		c.t.Fatalf("reading: %v", err)
	}
	return string(b)
}

// rest reads until the gateway hangs up.
func (c *client) rest() string {
	c.t.Helper()
	b, err := io.ReadAll(c.Conn)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		c.t.Fatal("the gateway did not hang up")
	}
	return string(b)
}

// message reads one message.
func (c *client) message() (kind byte, body []byte) {
	c.t.Helper()
	head := c.read(5)
	size := int(uint32(head[1])<<24|uint32(head[2])<<16|uint32(head[3])<<8|uint32(head[4])) - 4
	return head[0], []byte(c.read(size))
}

// fatal reads an ErrorResponse and returns its fields.
func (c *client) fatal() map[byte]string {
	c.t.Helper()
	kind, body := c.message()
	if kind != 'E' {
		c.t.Fatalf("message %q %q, want an error", kind, body)
	}
	return errorFields(body)
}

func errorFields(body []byte) map[byte]string {
	fields := map[byte]string{}
	for field := range bytes.SplitSeq(body, []byte{0}) {
		if len(field) > 0 {
			fields[field[0]] = string(field[1:])
		}
	}
	return fields
}

func be32(n uint32) []byte { return []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }

func packet(code uint32, rest ...[]byte) []byte {
	body := append(be32(code), bytes.Join(rest, nil)...)
	return append(be32(uint32(len(body)+4)), body...)
}

func typed(kind byte, body []byte) []byte {
	return append(append([]byte{kind}, be32(uint32(len(body)+4))...), body...)
}

func startup(version uint32, params ...string) []byte {
	var b []byte
	for _, p := range params {
		b = append(append(b, p...), 0)
	}
	return packet(version, append(b, 0))
}

func passwordMessage(password string) []byte { return typed('p', append([]byte(password), 0)) }

const (
	version30 = 3 << 16
	version32 = 3<<16 | 2
)

var (
	sslRequest    = packet(80877103)
	gssencRequest = packet(80877104)
	askPassword   = typed('R', []byte{0, 0, 0, 3})
)

func newKeys() *keyring.Keyring { return keyring.New(time.Now().Add(-2 * time.Hour)) }

type grant = credential.Grant

var noDeadline time.Time
