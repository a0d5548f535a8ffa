package registry

import (
	"encoding/json"
	"testing"
	"time"
)

// FuzzRecords: a record of a later version always revokes something: what its key selects, or
// everything. A record of version 1 is an error unless its key matches its content.
func FuzzRecords(f *testing.F) {
	for _, r := range []Revocation{{All: true}, {Cluster: "east"}, {Cluster: "east", DBUser: "alice"}, {CredentialID: "c"}, {Principal: "arn:aws:iam::123456789012:user/a/b"}} {
		r.IssuedBefore = time.Unix(1e9, 0).UTC()
		f.Add(r.key(), r.encode())
		f.Add(r.key(), []byte(`{"version":2}`))
		f.Add(r.key()+"/x", []byte(`{"version":2,"issued_before":"2001-09-09T01:46:40Z"}`))
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		r, err := decode(Record{Key: key, Value: value})
		var version struct{ Version int }
		later := json.Unmarshal(value, &version) == nil && version.Version > 1
		if later != (err == nil && r.later) {
			t.Fatalf("decode(%q, %q) = %+v, %v", key, value, r, err)
		}
		if err != nil {
			return
		}
		if !r.All && r.key() != key {
			t.Errorf("%q revokes what %q would", key, r.key())
		}
		x, err := newIndex(nil, []Record{{Key: key, Value: value}})
		if err != nil {
			t.Fatal(err)
		}
		c := Credential{ID: r.CredentialID, Principal: r.Principal, Cluster: r.Cluster, DBUser: r.DBUser, IssuedAt: r.IssuedBefore.Add(-time.Second)}
		if !x.revoked(&c) {
			t.Errorf("%q, %q do not revoke %+v", key, value, c)
		}
	})
}
