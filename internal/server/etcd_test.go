package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/client"
	"github.com/daypass/daypass/test/etcdtest"
	"github.com/daypass/daypass/test/pgtest"
	"github.com/daypass/daypass/test/sitetest"
)

// operator returns a client that calls the server as admin.
func (s *served) operator() *client.Client {
	s.t.Helper()
	key := sitetest.Keys["admin"]
	c, err := client.New(client.Config{
		Endpoint: s.where.API, Region: "us-east-1", HTTP: http.DefaultClient, Now: s.now,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: key[0], SecretAccessKey: key[1]}, nil
		}),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// refusal returns the SQLSTATE of a refused logon, or "" if the logon succeeds.
func (s *served) refusal(c issued) string {
	s.t.Helper()
	conn, err := s.tryLogon(c)
	return s.reason(conn, err)
}

// answer is refusal, but waits as logon does.
func (s *served) answer(c issued) string {
	s.t.Helper()
	conn, err := s.logon(c)
	return s.reason(conn, err)
}

func (s *served) reason(conn *pgx.Conn, err error) string {
	s.t.Helper()
	if err == nil {
		conn.Close(context.Background())
		return ""
	}
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		s.t.Fatalf("logging on: %v", err)
	}
	return refused.Code + " " + refused.Message
}

// TestTwoServers: two servers have separate data directories, but the same keyring content and
// the same etcd. Each accepts credentials of the other, and each refuses what the other has
// revoked.
func TestTwoServers(t *testing.T) {
	t.Parallel() // the test mostly waits
	etcd, database := etcdtest.Start(t), startDatabase(t)
	more := adminListener + fmt.Sprintf("registry: {etcd: {endpoints: [%q]}}\n", etcd.URL)
	here, there := newServed(t, database, more), newServed(t, database, more)
	here.start()
	keys, err := os.ReadFile(filepath.Join(here.dir, "data", "keyring.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(there.dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(there.dir, "data", "keyring.json"), keys, 0o600); err != nil {
		t.Fatal(err)
	}
	there.start()

	credential := here.issue(time.Now())
	session, err := there.logon(credential)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close(context.Background())
	if _, err := here.operator().Revoke(t.Context(), client.Selector{DBUser: "alice", Cluster: "examplecluster"}); err != nil {
		t.Fatal(err)
	}
	revoked := time.Now()
	// The target is one second, and five for the session; a busy machine gets more time here.
	for {
		began := time.Now()
		refusal := there.answer(credential)
		if strings.HasPrefix(refusal, "28000 ") && strings.Contains(refusal, "revoked") {
			t.Logf("refused at the other server after %v", began.Sub(revoked).Round(time.Millisecond))
			break
		}
		if refusal != "" || began.Sub(revoked) > time.Minute {
			t.Fatalf("%v after the revocation a logon at the other server gets %q", began.Sub(revoked), refusal)
		}
	}
	over, cancel := context.WithDeadline(t.Context(), revoked.Add(time.Minute))
	defer cancel()
	var ended *pgconn.PgError
	if _, err := session.WaitForNotification(over); !errors.As(err, &ended) || ended.Code != "57P01" {
		t.Errorf("the session at the other server: %v, want its end", err)
	}
	if list, err := there.operator().Revocations(t.Context()); err != nil || len(list) != 1 || list[0].DBUser != "alice" {
		t.Errorf("the other server lists %+v, %v", list, err)
	}
	for _, s := range []*served{here, there} {
		if _, err := os.Stat(filepath.Join(s.dir, "data", "registry.db")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("registry.db: %v, want none", err)
		}
	}

	// Without etcd it is unknown what is revoked: logons are refused, and open sessions stay.
	here.offset.Store(int64(2 * time.Second))
	there.offset.Store(int64(2 * time.Second)) // credentials issued from here on are not revoked
	credential = here.issue(here.now())
	if session, err = there.logon(credential); err != nil {
		t.Fatal(err)
	}
	defer session.Close(context.Background())
	etcd.Stop()
	for _, s := range []*served{here, there} {
		pgtest.Eventually(t, "logons to be refused", func() bool {
			return strings.HasPrefix(s.refusal(credential), "57P03 ") && strings.Contains(s.log.String(), "logons are refused")
		})
		if status, _, body := s.get("http://" + s.where.Admin + "/readyz"); status != http.StatusServiceUnavailable ||
			!strings.Contains(body, "etcd at "+etcd.Host+": ") {
			t.Errorf("/readyz = %d %s", status, body)
		}
		if log := s.log.String(); strings.Count(log, "logons are refused") != 1 || !strings.Contains(log, etcd.Host) {
			t.Errorf("the log does not say once that logons are refused:\n%s", log)
		}
	}
	if c := here.issue(here.now()); c.status != http.StatusOK {
		t.Errorf("issuing without etcd: %d %s", c.status, c.Code)
	}
	if _, err := here.operator().Revoke(t.Context(), client.Selector{All: true}); err == nil {
		t.Error("a revocation that is not kept is confirmed")
	}
	if _, err := session.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the session that was open: %v", err)
	}
	etcd.Start()
	for _, s := range []*served{here, there} {
		pgtest.Eventually(t, "logons again, and the log to say so", func() bool {
			return s.refusal(credential) == "" && strings.Contains(s.log.String(), "the registry can be read again")
		})
		if status, _, body := s.get("http://" + s.where.Admin + "/readyz"); status != http.StatusOK {
			t.Errorf("/readyz = %d %s", status, body)
		}
	}

	// The registry cannot be moved while the server runs.
	there.write(database, adminListener)
	there.hangup <- os.Interrupt
	pgtest.Eventually(t, "the reload to be refused", func() bool {
		return strings.Contains(there.log.String(), "registry.etcd: cannot be taken away")
	})
}

// TestStartWithoutEtcd: a server that cannot read the revocations does not start, and says so
// within seconds.
func TestStartWithoutEtcd(t *testing.T) {
	const nobody = "127.0.0.1:1"
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	for name, row := range map[string]struct{ address, more, want string }{
		"nobody":              {nobody, "", "connection refused"},
		"nobody, a password":  {nobody, ", username: daypass, password_file: upstream.password", "connection refused"},
		"silence":             {silent.Addr().String(), "", "no member has answered in time"},
		"silence, a password": {silent.Addr().String(), ", username: daypass, password_file: upstream.password", "no member has answered in time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServed(t, "127.0.0.1:1", fmt.Sprintf("registry:\n  etcd: {endpoints: [\"http://%s\"]%s}\n", row.address, row.more))
			began := time.Now()
			err := s.tryStart()
			if err == nil {
				_ = s.stop()
				t.Fatal("the server starts")
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("it took %v", took)
			}
			for _, want := range []string{"daypass.yaml:", ": registry.etcd: ", "the registry: etcd at " + row.address, row.want,
				"`etcdctl --endpoints=http://" + row.address + " endpoint health`"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %q", err, want)
				}
			}
			t.Log(err)
		})
	}
}
