package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/daypass/daypass/internal/client"
	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/fleet"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/test/etcdtest"
	"github.com/daypass/daypass/test/pgtest"
)

const testRootKey = "5mrUHyeJx4KGsXXGbqZqCLpEVkGePlmkkkIAXfHlYmQ="

// newMember returns a server that shares keys with the others through etcd, and has a data
// directory of its own.
func newMember(t *testing.T, database, etcd, more string) *served {
	t.Helper()
	s := newServed(t, database, adminListener+fmt.Sprintf("registry: {etcd: {endpoints: [%q]}}\nroot_key: {file: root.key}\n", etcd)+more)
	if err := os.WriteFile(filepath.Join(s.dir, "root.key"), []byte(testRootKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// keys returns the Keys that an operator would open on the server's machine.
func (s *served) keys() *Keys {
	s.t.Helper()
	cfg, err := config.Load(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	keys, err := OpenKeys(s.t.Context(), cfg, s.now)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { keys.Close() })
	return keys
}

// settled waits until a rotation has ended.
func settled(t *testing.T, keys *Keys) {
	t.Helper()
	pgtest.Eventually(t, "the rotation to be over", func() bool {
		late, _, err := keys.Settled(t.Context())
		return err == nil && len(late) == 0
	})
}

// signerOf returns the identifier of the key that signed a credential.
func signerOf(t *testing.T, c issued) string {
	t.Helper()
	token, err := base64.RawURLEncoding.DecodeString(c.DbPassword)
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(token), "\x04\x48") // 4: an identifier of 8 bytes
	if !found {
		t.Fatalf("no key in %x", token)
	}
	return fmt.Sprintf("%x", after[:8])
}

// TestServersShareKeys: three servers share only an etcd and the root key. Each accepts the
// credentials of all three, while keys are rotated, one server's key is revoked, and servers
// come and go.
func TestServersShareKeys(t *testing.T) {
	t.Parallel() // the test mostly waits
	etcd, database := etcdtest.Start(t), startDatabase(t)
	var all []*served
	for range 3 {
		s := newMember(t, database, etcd.URL, "")
		s.start()
		all = append(all, s)
	}
	keys := all[0].keys()
	// A server whose announcement is late is left out, or its clock seems to be behind.
	var three []fleet.Server
	pgtest.Eventually(t, "three servers in the list", func() bool {
		var err error
		if three, err = keys.Servers(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(three) == 3 && fleet.Differences(three)[fleet.Clocks] == ""
	})
	if len(fleet.Differences(three)) != 0 || three[0].Config == "" {
		t.Errorf("Servers() = %+v, %v", three, fleet.Differences(three))
	}
	signers := map[string]bool{}
	agree := func(when string, servers ...*served) {
		t.Helper()
		for _, a := range servers {
			c := a.issue(a.now())
			if c.DbPassword == "" {
				t.Errorf("%s: issuing: %d %s", when, c.status, c.Code)
				continue
			}
			signers[signerOf(t, c)] = true
			for _, b := range servers {
				if refusal := b.answer(c); refusal != "" {
					t.Errorf("%s: a credential of a moment ago is refused: %s", when, refusal)
				}
			}
		}
	}
	agree("at the start", all...)
	if len(signers) != 3 {
		t.Errorf("3 servers have signed with %d keys", len(signers))
	}
	old := all[1].issue(all[1].now())
	if err := keys.Rotate(t.Context(), fleet.Rotation{Upstream: true}); err != nil {
		t.Fatal(err)
	}
	agree("in a rotation", all...)
	settled(t, keys)
	agree("after a rotation", all...)
	if len(signers) < 6 {
		t.Errorf("after a rotation %d keys have signed", len(signers))
	}
	if refusal := all[2].answer(old); refusal != "" {
		t.Errorf("a credential of before the rotation is refused: %s", refusal)
	}

	bad, good := all[1].issue(all[1].now()), all[0].issue(all[0].now())
	if _, err := keys.Revoke(t.Context(), signerOf(t, bad)); err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		pgtest.Eventually(t, "the revoked key's credential to be refused", func() bool { return strings.HasPrefix(s.refusal(bad), "28000 ") })
		if refusal := s.answer(good); refusal != "" {
			t.Errorf("another server's credential is refused: %s", refusal)
		}
	}
	settled(t, keys)
	agree("after a revocation", all...)

	// A server leaves and another one joins: credentials that the first one issued stay
	// valid.
	last := all[2].issue(all[2].now())
	if err := all[2].stop(); err != nil {
		t.Fatal(err)
	}
	fresh := newMember(t, database, etcd.URL, "audit: {principal_bytes: 30000}\n")
	fresh.start()
	pgtest.Eventually(t, "the other configuration to be noticed", func() bool {
		_, _, metrics := all[0].get("http://" + all[0].where.Admin + "/metrics")
		_, _, ready := all[0].get("http://" + all[0].where.Admin + "/readyz")
		return strings.Contains(metrics, "daypass_servers_differ{about=\"configuration\"} 1\n") && strings.Contains(metrics, "daypass_servers_differ{about=\"clock\"} 0\n") &&
			strings.Contains(metrics, "daypass_servers 3\n") && strings.Contains(ready, "the servers differ in configuration: ")
	})
	agree("after a server came", all[0], all[1], fresh)
	for _, s := range []*served{all[0], fresh} {
		if refusal := s.answer(last); refusal != "" {
			t.Errorf("a credential of the server that left is refused: %s", refusal)
		}
		if _, err := os.Stat(filepath.Join(s.dir, "data", "keyring.json")); err == nil {
			t.Error("a server that shares keys has a keyring file")
		}
	}
	list, err := keys.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	count := map[keyring.State]int{}
	for _, k := range list {
		if k.Server != "" && !k.Revoked {
			count[k.State]++
		}
	}
	if count[keyring.InUse] != 3 || count[keyring.Kept] < 4 {
		t.Errorf("Keys() has %v of servers, want 3 in use and the earlier ones kept", count)
	}

	// While the keys in etcd cannot be read, a revoked key would go unnoticed. So logons are
	// refused, although the revocations of credentials can be read.
	good = fresh.issue(fresh.now())
	client := etcd.Client()
	if _, err := client.Put(t.Context(), "daypass/fleet/x", "another program's"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "logons to be refused", func() bool {
		_, _, ready := fresh.get("http://" + fresh.where.Admin + "/readyz")
		return strings.HasPrefix(fresh.refusal(good), "57P03 ") && strings.Contains(ready, "the keys in force are not known: ")
	})
	if _, err := client.Delete(t.Context(), "daypass/fleet/x"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "logons to be accepted again", func() bool { return fresh.refusal(good) == "" })
}

// TestMoveToEtcd moves two servers from a copied keyring file to shared keys, one after the
// other. All credentials stay valid.
func TestMoveToEtcd(t *testing.T) {
	t.Parallel() // the test mostly waits
	etcd, database := etcdtest.Start(t), startDatabase(t)
	shared := adminListener + fmt.Sprintf("registry: {etcd: {endpoints: [%q]}}\n", etcd.URL)
	a, b := newServed(t, database, shared), newServed(t, database, shared)
	a.start()
	file, err := os.ReadFile(filepath.Join(a.dir, "data", "keyring.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(b.dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "data", "keyring.json"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	for _, s := range []*served{a, b} {
		if err := os.WriteFile(filepath.Join(s.dir, "root.key"), []byte(testRootKey), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var issuedBefore []issued
	agree := func(when string) {
		t.Helper()
		for _, s := range []*served{a, b} {
			issuedBefore = append(issuedBefore, s.issue(s.now()))
		}
		for _, c := range issuedBefore {
			for _, s := range []*served{a, b} {
				if refusal := s.answer(c); refusal != "" {
					t.Errorf("%s: refused: %s", when, refusal)
				}
			}
		}
	}
	agree("with a file")
	restart := func(s *served) {
		t.Helper()
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		s.write(database, shared+"root_key: {command: [cat, "+filepath.Join(s.dir, "root.key")+"]}\n")
		s.start()
	}
	// If the keyring file was not moved, a server does not start, and says what to do.
	b.write(database, shared+"root_key: {file: root.key}\n")
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.tryStart(); err == nil || !strings.Contains(err.Error(), "root_key: ") || !strings.Contains(err.Error(), "daypass keys move") {
		t.Fatalf("with keys in a file the start: %v", err)
	}
	keys, err := keyring.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.keys().Move(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
	b.start()
	agree("one has moved")
	restart(a)
	agree("both have moved")
	operator := a.keys()
	if err := operator.Rotate(t.Context(), fleet.Rotation{}); err != nil {
		t.Fatal(err)
	}
	settled(t, operator)
	agree("keys of their own")
}

// TestRootKeyFaults: each fault of the root key is reported with its place.
func TestRootKeyFaults(t *testing.T) {
	for name, row := range map[string]struct {
		text, config string
		mode         os.FileMode
		want         []string
	}{
		"nothing":         {"", "{file: root.key}", 0o600, []string{"root_key.file: ", "openssl rand -base64 32"}},
		"a password":      {"correct horse battery staple", "{file: root.key}", 0o600, []string{"line 1: not 32 bytes", "openssl"}},
		"zeros":           {strings.Repeat("00", 32), "{file: root.key}", 0o600, []string{"not random"}},
		"twice":           {testRootKey + "\n" + testRootKey, "{file: root.key}", 0o600, []string{"line 2: the same root key twice"}},
		"open to others":  {testRootKey, "{file: root.key}", 0o644, []string{"root.key can be read by others", "chmod"}},
		"command fails":   {"", `{command: [sh, "-c", "echo no such secret >&2; exit 3"]}`, 0o600, []string{"root_key.command: sh: exit status 3: no such secret"}},
		"command traces":  {testRootKey, `{command: [sh, "-xc", "echo ` + testRootKey + `; exit 3"]}`, 0o600, []string{"exit status 3", "[redacted]"}},
		"command missing": {"", "{command: [no-such-program]}", 0o600, []string{"root_key.command: no-such-program: "}},
		"command prints":  {"", "{command: [echo, nonsense]}", 0o600, []string{"what echo prints: line 1: not 32 bytes"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServed(t, "127.0.0.1:1", "registry: {etcd: {endpoints: [\"http://127.0.0.1:1\"]}}\nroot_key: "+row.config+"\n")
			path := filepath.Join(s.dir, "root.key")
			if err := os.WriteFile(path, []byte(row.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, row.mode); err != nil {
				t.Fatal(err)
			}
			cfg, err := config.Load(s.config)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err = readRoot(ctx, cfg)
			if err == nil {
				t.Fatal("it is taken")
			}
			for _, want := range row.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %q", err, want)
				}
			}
			if row.text != "" && strings.Contains(err.Error(), row.text) {
				t.Errorf("the error quotes the file: %v", err)
			}
		})
	}
}

// cancel sends a cancel request to a server, and waits until it closes the connection.
func (s *served) cancel(pid uint32, key []byte) {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.where.Gateway.String())
	if err != nil {
		s.t.Error(err)
		return
	}
	defer conn.Close()
	request := binary.BigEndian.AppendUint32(nil, uint32(12+len(key)))
	request = binary.BigEndian.AppendUint32(request, 80877102)
	request = append(binary.BigEndian.AppendUint32(request, pid), key...)
	if _, err := conn.Write(request); err != nil {
		s.t.Error(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	_, _ = io.Copy(io.Discard, conn)
}

// TestServersReachOneAnother: any of three servers lists every session once, ends any
// session, and passes a cancel request on to the server that has the session.
func TestServersReachOneAnother(t *testing.T) {
	t.Parallel() // the test mostly waits
	etcd, database := etcdtest.Start(t), startDatabase(t)
	var all []*served
	for range 3 {
		s := newMember(t, database, etcd.URL, "peers: {listen: \"127.0.0.1:0\"}\n")
		s.start()
		all = append(all, s)
	}
	a, b, c := all[0], all[1], all[2]
	sessions := map[string]*pgx.Conn{}
	for n, s := range []*served{a, b, b} {
		conn, err := s.logon(s.issue(s.now()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		sessions[fmt.Sprint(n)] = conn
	}
	var list []client.Session
	pgtest.Eventually(t, "each server to list all sessions", func() bool {
		for _, s := range all {
			got, unanswered, err := s.operator().Sessions(t.Context(), "", "")
			if err != nil || len(unanswered) > 0 || len(got) != 3 {
				return false
			}
			list = got
		}
		return true
	})
	ids, servers := map[string]bool{}, map[string]int{}
	for _, s := range list {
		ids[s.ID] = true
		servers[s.Server]++
	}
	if len(ids) != 3 || len(servers) != 2 {
		t.Errorf("%d sessions are listed, at servers %v", len(ids), servers)
	}

	// A cancel request for a session at a arrives at c, as it may behind a balancer. A
	// request with a made-up key has no effect.
	conn := sessions["0"].PgConn()
	for _, to := range []*served{c, b, a} {
		done := make(chan error, 1)
		go func() {
			_, err := conn.Exec(context.Background(), "SELECT pg_sleep(60)").ReadAll()
			done <- err
		}()
		pgtest.Eventually(t, "the query to run", func() bool {
			got, _, err := b.operator().Sessions(t.Context(), "", "")
			return err == nil && slices.ContainsFunc(got, func(s client.Session) bool { return s.State == "active" })
		})
		wrong := bytes.Clone(conn.SecretKey())
		wrong[0] ^= 1
		to.cancel(conn.PID(), wrong)
		to.cancel(conn.PID()+1, conn.SecretKey())
		select {
		case err := <-done:
			t.Fatalf("a cancel request with a wrong key: %v", err)
		default:
		}
		// PostgreSQL may not have begun the query yet, and ignores a request that comes before it.
		pgtest.Eventually(t, "a cancel request to another server to arrive", func() bool {
			to.cancel(conn.PID(), conn.SecretKey())
			select {
			case err := <-done:
				if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != "57014" {
					t.Errorf("the query: %v, want 57014", err)
				}
				return true
			default:
				return false
			}
		})
	}

	// Servers whose announcements are gone, as when they cannot reach etcd, still have their
	// sessions.
	announcements := etcd.Client()
	alone := func() bool {
		_, _, metrics := c.get("http://" + c.where.Admin + "/metrics")
		return strings.Contains(metrics, "daypass_servers 1\n") || strings.Contains(metrics, "daypass_servers 0\n")
	}
	pgtest.Eventually(t, "the announcements to be gone while sessions are listed", func() bool {
		if _, err := announcements.Delete(t.Context(), "daypass/fleet/server/", clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		before := alone()
		got, unanswered, err := c.operator().Sessions(t.Context(), "", "")
		if !before || !alone() {
			return false
		}
		if err != nil || len(got) != 3 || len(unanswered) > 0 {
			t.Errorf("with the announcements gone %d sessions are listed, %v did not answer, %v", len(got), unanswered, err)
		}
		return true
	})

	// Each session is ended through another server, and the record is at the session's own
	// server.
	for _, s := range list {
		if err := c.operator().Terminate(t.Context(), s.ID); err != nil {
			t.Errorf("ending a session of another server's: %v", err)
		}
	}
	for _, conn := range sessions {
		over, stop := context.WithTimeout(t.Context(), time.Minute)
		var ended *pgconn.PgError
		if _, err := conn.WaitForNotification(over); !errors.As(err, &ended) || ended.Code != "57P01" {
			t.Errorf("a session that was ended: %v", err)
		}
		stop()
	}
	if err := c.operator().Terminate(t.Context(), list[0].ID); err == nil || !strings.Contains(err.Error(), "SessionNotFound") {
		t.Errorf("ending it again: %v", err)
	}
	pgtest.Eventually(t, "the ends to be recorded once, where the sessions were", func() bool {
		return a.sessionEnds() == 1 && b.sessionEnds() == 2 && c.sessionEnds() == 0
	})
}
