package fleet

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/registry"
)

// TestRecordsOfOtherReleases reads the records in testdata, which the first release with records
// wrote. Every later release must read them, and earlier releases must read what later ones write,
// because servers of two releases run side by side during an upgrade. A release that has to break
// this needs a new version number.
func TestRecordsOfOtherReleases(t *testing.T) {
	roots, err := keyring.ParseRoots([]byte("5mrUHyeJx4KGsXXGbqZqCLpEVkGePlmkkkIAXfHlYmQ="))
	if err != nil {
		t.Fatal(err)
	}
	const file = "testdata/records-1.json"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]string{}
	if err := json.Unmarshal(data, &stored); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	var records []registry.Record
	for key, value := range stored {
		records = append(records, registry.Record{Key: key, Value: []byte(value), Revision: uint64(len(records) + 1)})
	}
	v := newView().next(roots, records, now, true)
	if len(v.problems) > 0 || v.shared == nil || len(v.signers) != 1 || len(v.revoked) != 1 || len(v.servers) != 1 || v.shared.Serial() != 2 || !v.shared.Pending() {
		t.Fatalf("the records of the first release are not understood: %v, %+v", v.problems, v)
	}
	if s := v.servers["db1-k3v9zq"]; s.Release != "1.0.0" || s.Peers != "10.0.0.1:8443" || s.Seen != 7 || s.Sessions != 3 {
		t.Errorf("the server is %+v", s)
	}

	// A later release writes additional fields in each statement, such as the announcement, and
	// in the sealed document.
	more := func(text string) string {
		return strings.Replace(text, `{"version":1,`, `{"version":1,"later":{"x":[1]},`, 1)
	}
	for key, value := range stored {
		if key == sharedKey {
			plain := more(string(v.shared.Marshal()))
			value = string(marshal(sealedRecord{recordVersion, roots.Seal(sharedKey, []byte(plain))}))
			value = more(value)
		} else {
			var e envelope
			if err := json.Unmarshal([]byte(value), &e); err != nil {
				t.Fatal(err)
			}
			statement := more(e.Statement)
			value = more(string(marshal(envelope{recordVersion, statement, roots.Sign("record", key, []byte(statement))})))
		}
		if !strings.Contains(value, "later") {
			t.Fatalf("%s has nothing new", key)
		}
		if next := newView().next(roots, []registry.Record{{Key: key, Value: []byte(value), Revision: 1}}, now, true); len(next.problems) > 0 {
			t.Errorf("what a later release writes is not understood: %v", next.problems)
		}
		// A record of an unknown version is skipped, and affects no other record.
		other := strings.Replace(value, `{"version":1,`, `{"version":2,`, 1)
		next := newView().next(roots, []registry.Record{{Key: key, Value: []byte(other), Revision: 1}}, now, true)
		if strings.HasPrefix(key, revokedPrefix) {
			checkLaterRevocation(t, roots, key, value, now)
		}
		if err := next.problems[key]; err == nil || !strings.Contains(err.Error(), "later release") {
			t.Errorf("%s of another version: %v", key, err)
		}
	}
	// A kind of record that a later release adds is ignored.
	if next := newView().next(roots, []registry.Record{{Key: "fleet/later/x", Value: []byte("x"), Revision: 1}}, now, true); len(next.problems) > 0 {
		t.Errorf("a record of another kind: %v", next.problems)
	}
}

// checkLaterRevocation checks that a statement of a later version is believed if it is signed, even
// if nothing else in it is understood, and that the record is kept.
func checkLaterRevocation(t *testing.T, roots *keyring.Roots, key, value string, now time.Time) {
	t.Helper()
	var e envelope
	if err := json.Unmarshal([]byte(value), &e); err != nil {
		t.Fatal(err)
	}
	id := strings.TrimPrefix(key, revokedPrefix)
	for _, statement := range []string{strings.Replace(e.Statement, `{"version":1,`, `{"version":2,`, 1), `{"version":2}`, `{"version":2,"until":[]}`} {
		record := registry.Record{Key: key, Value: marshal(envelope{recordVersion, statement, roots.Sign("record", key, []byte(statement))}), Revision: 1}
		v := newView().next(roots, []registry.Record{record}, now, true)
		if len(v.problems) > 0 || v.revoked[id] == nil {
			t.Errorf("%s is not believed: %v", statement, v.problems)
			continue
		}
		f := &Fleet{config: Config{Roots: roots, Now: func() time.Time { return now.Add(365 * 24 * time.Hour) }}, view: v}
		v.shared = keyring.NewShared(now)
		if steps := f.planLocked(); len(steps) != 2 { // its own key, and the shared secrets
			t.Errorf("%s: %d writes, want none of the revocation", statement, len(steps))
		}
		record.Value = marshal(envelope{recordVersion, statement, keyring.NewRoots().Sign("record", key, []byte(statement))})
		if v := newView().next(roots, []registry.Record{record}, now, true); v.revoked[id] != nil {
			t.Errorf("%s is believed without a signature", statement)
		}
	}
}

// FuzzRecords: no record that was written without the root key is believed, and neither is a
// statement that was signed for another record or under another root key.
func FuzzRecords(f *testing.F) {
	roots, other := keyring.NewRoots(), keyring.NewRoots()
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	signed := keyring.NewSigner(now)
	key := signerPrefix + signed.ID()
	statement := signerStatement{Version: recordVersion, Server: "a", Public: signed.Public(), Epoch: 1, Created: now, Certified: now, SignsUntil: now.Add(window)}
	good := certify(roots, key, statement)
	for _, value := range [][]byte{nil, []byte("{}"), good, certify(other, key, statement), seal(other, keyring.NewShared(now)), seal(roots, keyring.NewShared(now))[:100]} {
		for _, key := range []string{sharedKey, key, revokedPrefix + signed.ID(), serverPrefix + "a", prefix} {
			f.Add(key, value)
		}
	}
	f.Fuzz(func(t *testing.T, at string, value []byte) {
		v := newView().next(roots, []registry.Record{{Key: at, Value: value, Revision: 1}}, now, true)
		believed := len(v.signers) + len(v.revoked) + len(v.servers)
		if v.shared != nil || believed > 0 && (at != key || !signedAlike(good, value)) {
			t.Errorf("%q at %s is believed", value, at)
		}
	})
}

// signedAlike reports whether two records have the same statement and the same signature, even if
// their JSON is formatted differently.
func signedAlike(a, b []byte) bool {
	var x, y envelope
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && x.Statement == y.Statement && string(x.Signature) == string(y.Signature)
}
