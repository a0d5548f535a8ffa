package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/test/pgtest"
)

// breakAuditLog simulates a full disk under the audit log: it replaces the files of today and of
// tomorrow by links to /dev/full, and keeps the existing lines in another file. The returned function
// frees the space again.
func breakAuditLog(t *testing.T, s *served) (restore func()) {
	t.Helper()
	now := s.now().UTC()
	var paths []string
	for _, day := range []time.Time{now, now.AddDate(0, 0, 1)} { // the test may run at midnight
		path := filepath.Join(s.dir, "data", "audit", day.Format(time.DateOnly)+".jsonl")
		if err := os.Rename(path, path+".before"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err := os.Symlink("/dev/full", path); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return func() {
		t.Helper()
		for _, path := range paths {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// wholeLines returns a file of the audit log without a last line that is still being written.
func wholeLines(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data[:bytes.LastIndexByte(data, '\n')+1]
}

// auditLines returns all lines of the audit log. Each has to be JSON.
func auditLines(t *testing.T, s *served) []map[string]any {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "data", "audit", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []map[string]any
	for _, name := range files {
		for text := range bytes.Lines(wholeLines(t, name)) {
			var line map[string]any
			if err := json.Unmarshal(text, &line); err != nil {
				t.Errorf("%s: a line that is not JSON: %v", name, err)
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// recorded returns the ids of credentials in the audit log.
func recorded(t *testing.T, s *served) map[string]bool {
	t.Helper()
	ids := map[string]bool{}
	for _, line := range auditLines(t, s) {
		if data, ok := line["additionalEventData"].(map[string]any); ok {
			if id, ok := data["credentialId"].(string); ok {
				ids[id] = true
			}
		}
	}
	return ids
}

func credentialID(t *testing.T, s *served, c issued) string {
	t.Helper()
	keys, err := keyring.LoadFile(filepath.Join(s.dir, "data", "keyring.json"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := credential.Check(keys.Current().Verifier(), c.DbPassword, s.now())
	if err != nil {
		t.Fatalf("a credential that was just issued: %v", err)
	}
	return g.ID
}

// TestFullDisk: many callers request credentials while the disk fills up and is freed again.
// Every issued credential has a line in the audit log, and the files contain only complete
// lines.
func TestFullDisk(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", "")
	s.start()
	var mu sync.Mutex
	var given []issued
	var refused, wrong atomic.Int64
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				switch c := s.issue(time.Now()); {
				case c.status == 200:
					mu.Lock()
					given = append(given, c)
					mu.Unlock()
				case c.status == 503 && c.Code == "ServiceUnavailable" && c.DbPassword == "":
					refused.Add(1)
				default:
					wrong.Add(1)
				}
			}
		})
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(given) }
	pgtest.Eventually(t, "credentials", func() bool { return count() > 20 })
	restore := breakAuditLog(t, s)
	pgtest.Eventually(t, "refusals", func() bool { return refused.Load() > 20 })
	during := count()
	before := refused.Load()
	pgtest.Eventually(t, "more refusals", func() bool { return refused.Load() >= before+20 })
	if n := count() - during; n > 8 { // calls that were under way when the disk filled up
		t.Errorf("%d credentials were issued on a full disk", n)
	}
	restore()
	pgtest.Eventually(t, "credentials again", func() bool { return count() > during+20 })
	close(stop)
	callers.Wait()
	if wrong.Load() > 0 {
		t.Errorf("%d answers were neither a credential nor 503", wrong.Load())
	}
	lines := recorded(t, s)
	for _, c := range given {
		if id := credentialID(t, s, c); !lines[id] {
			t.Fatalf("credential %s was issued and is not in the record", id)
		}
	}
	gap := false
	for _, line := range auditLines(t, s) {
		gap = gap || line["eventName"] == "AuditGap"
	}
	if !gap {
		t.Error("the record does not say that acts were refused")
	}
}

// TestKeyringRotatedUnderLoad rotates keys while credentials are issued and checked. Every
// credential works, whichever key signed it.
func TestKeyringRotatedUnderLoad(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", "")
	s.start()
	path := filepath.Join(s.dir, "data", "keyring.json")
	other, err := keyring.LoadFile(path) // as in another process
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var mu sync.Mutex
	var given []issued
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c := s.issue(time.Now())
				if c.status != 200 {
					t.Errorf("while keys are rotated: %d %s", c.status, c.Code)
					return
				}
				mu.Lock()
				given = append(given, c)
				mu.Unlock()
			}
		})
	}
	for range 3 {
		mark := s.log.Len()
		if _, err := other.Update(func(k *keyring.Keyring) *keyring.Keyring { return k.Rotate(s.now(), s.now()) }); err != nil {
			t.Fatal(err)
		}
		pgtest.Eventually(t, "the server to take the keys up", func() bool { return strings.Contains(s.log.String()[mark:], "keyring reloaded") })
	}
	close(stop)
	callers.Wait()
	signers := map[string]bool{}
	for _, c := range given {
		g, err := credential.Check(other.Current().Verifier(), c.DbPassword, s.now())
		if err != nil {
			t.Fatalf("a credential of a rotated key: %v", err)
		}
		signers[credential.Inspect(other.Current().Verifier(), c.DbPassword, s.now()).KeyID] = true
		if g.ID == "" {
			t.Fatal("no id")
		}
	}
	if len(signers) < 2 {
		t.Errorf("the credentials were signed by %d keys, want several", len(signers))
	}
}

// TestClockSteps: the server's clock is stepped. A step does not change the times in a credential:
// when the clock shows a time after Expiration, the credential is refused.
func TestClockSteps(t *testing.T) {
	s := newServed(t, startDatabase(t), "")
	s.start()
	first := s.issue(s.now())
	if first.status != 200 {
		t.Fatalf("%d %s", first.status, first.Code)
	}
	logon := func(c issued) string {
		t.Helper()
		conn, err := s.logon(c)
		if err != nil {
			return err.Error()
		}
		conn.Close(t.Context())
		return ""
	}
	if err := logon(first); err != "" {
		t.Fatalf("at first: %s", err)
	}

	s.offset.Store(int64(-2 * time.Hour))
	if c := s.issue(time.Now()); c.status == 200 || !slices.Contains([]string{"SignatureDoesNotMatch", "RequestExpired", "InvalidSignatureException"}, c.Code) {
		t.Errorf("two hours back, a request signed now: %d %s, want it refused as from the future", c.status, c.Code)
	}
	if err := logon(first); !strings.Contains(err, "not valid yet") {
		t.Errorf("two hours back, a credential from the future: %q", err)
	}
	back := s.issue(s.now()) // the caller's clock is as wrong as the server's
	if back.status != 200 {
		t.Errorf("two hours back, before the first key was made: %d %s", back.status, back.Code)
	} else if err := logon(back); err != "" {
		t.Errorf("a credential that was issued then: %s", err)
	}

	s.offset.Store(0)
	if err := logon(first); err != "" {
		t.Errorf("the clock right again: %s", err)
	}
	if back.status == 200 {
		if err := logon(back); !strings.Contains(err, "expired") {
			t.Errorf("a credential of two hours ago: %q", err)
		}
	}

	s.offset.Store(int64(2 * time.Hour))
	if err := logon(first); !strings.Contains(err, "expired") {
		t.Errorf("two hours ahead: %q, want expired", err)
	}
	ahead := s.issue(s.now())
	if ahead.status != 200 {
		t.Fatalf("two hours ahead: %d %s", ahead.status, ahead.Code)
	}
	if err := logon(ahead); err != "" {
		t.Errorf("a credential that was issued then: %s", err)
	}
	s.offset.Store(0)
	if err := logon(ahead); !strings.Contains(err, "not valid yet") {
		t.Errorf("a credential from the future: %q", err)
	}
	if n := len(recorded(t, s)); n < 3 {
		t.Errorf("%d credentials are in the record, want all", n)
	}
}

// TestDamagedFiles starts servers on damaged data directories. Each server refuses to start,
// with a message that names the file and the remedy, and leaves the directory unchanged.
func TestDamagedFiles(t *testing.T) {
	base := newServed(t, "127.0.0.1:1", "")
	base.start()
	if c := base.issue(time.Now()); c.status != 200 {
		t.Fatalf("%d %s", c.status, c.Code)
	}
	half := func(b []byte) []byte { return b[:len(b)/2] }
	flip := func(b []byte) []byte { b = slices.Clone(b); b[len(b)/2] ^= 0x55; return b }
	empty := func([]byte) []byte { return nil }
	for _, row := range []struct {
		file   string
		damage map[string]func([]byte) []byte
		want   []string
	}{
		{"keyring.json", map[string]func([]byte) []byte{"truncated": half, "altered": flip, "empty": empty}, []string{"keyring.json", "restore it from a backup"}},
		{"tls/ca.crt", map[string]func([]byte) []byte{"truncated": half, "altered": flip, "empty": empty}, []string{"ca.crt"}},
		{"tls/ca.key", map[string]func([]byte) []byte{"truncated": half, "altered": flip, "empty": empty}, []string{"ca.key"}},
		{"registry.db", map[string]func([]byte) []byte{"truncated": half, "not a registry": func([]byte) []byte { return []byte(strings.Repeat("x", 8192)) }}, []string{"registry.db"}},
	} {
		for how, damage := range row.damage {
			t.Run(row.file+" "+how, func(t *testing.T) {
				good, err := os.ReadFile(filepath.Join(base.dir, "data", row.file))
				if err != nil {
					t.Fatal(err)
				}
				s := newServed(t, "127.0.0.1:1", "")
				if err := os.CopyFS(filepath.Join(s.dir, "data"), os.DirFS(filepath.Join(base.dir, "data"))); err != nil {
					t.Fatal(err)
				}
				close := func(name string, entry fs.DirEntry, err error) error { // CopyFS does not keep modes
					if err == nil && entry.IsDir() {
						return os.Chmod(name, 0o700)
					}
					return errors.Join(err, os.Chmod(name, 0o600))
				}
				if err := filepath.WalkDir(filepath.Join(s.dir, "data"), close); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(s.dir, "data", row.file)
				bad := damage(good)
				if err := os.WriteFile(path, bad, 0o600); err != nil {
					t.Fatal(err)
				}
				err = s.tryStart()
				if err == nil {
					_ = s.stop()
					t.Fatalf("the server starts on it\n%s", s.log)
				}
				for _, want := range row.want {
					if !strings.Contains(strings.ReplaceAll(err.Error(), s.dir, ""), want) {
						t.Errorf("the message lacks %q: %v", want, err)
					}
				}
				if now, err := os.ReadFile(path); err != nil || string(now) != string(bad) {
					t.Errorf("the file was changed: %v", err)
				}
				t.Log(err)
			})
		}
	}
}

// TestUnwritableData starts where nothing can be written.
func TestUnwritableData(t *testing.T) {
	for name, prepare := range map[string]func(data string) error{
		"a file in its place": func(data string) error { return os.WriteFile(data, nil, 0o600) },
		"a file in the audit log's place": func(data string) error {
			if err := os.Mkdir(data, 0o700); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(data, "audit"), nil, 0o600)
		},
		"no space": func(data string) error {
			if err := os.MkdirAll(filepath.Join(data, "audit"), 0o700); err != nil {
				return err
			}
			// The server has to write its process id to the file, which has no space.
			return os.Symlink("/dev/full", filepath.Join(data, "lock"))
		},
		"readable by others": func(data string) error { return os.Mkdir(data, 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newServed(t, "127.0.0.1:1", "")
			data := filepath.Join(s.dir, "data")
			if err := prepare(data); err != nil {
				t.Fatal(err)
			}
			err := s.tryStart()
			if err == nil {
				_ = s.stop()
				t.Fatal("the server starts")
			}
			if !strings.Contains(err.Error(), data) {
				t.Errorf("the message does not name the directory: %v", err)
			}
			t.Log(err)
		})
	}
}
