package dbuser

import (
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5"
)

// FuzzPlan: the state comes from a server, which may be hostile. Whatever it contains, the code
// plans or refuses, and does not panic.
func FuzzPlan(f *testing.F) {
	f.Add(`{"admin": {"name": "daypass", "login": "daypass", "createrole": true}, "roles": [{"oid": 5, "name": "alice", "login": true}]}`, 180000, 1.0)
	f.Add(`{"marker": 1, "roles": [{"oid": 5, "name": "alice", "login": true}, {"oid": 6, "name": "IAM:alice", "session": true, "alterable": true, "login": true, "validuntil": 1e300}],
		"of": [{"member": 6, "role": "alice", "oid": 5}], "into": [{"role": "IAM:alice", "member": "x"}], "settings": [{"role": 5, "config": ["=", "a"]}, {"role": 6, "large": true}]}`, 150000, 1.0)
	f.Add(`{"carries": [{"root": 5, "name": ""}], "roles": [{"oid": 5, "name": "alice", "login": true}, null]}`, 130000, -1e308)
	f.Add(`{"database": {}, "roles": null}`, 0, 0.0)
	a := New(Config{Cluster: "fuzz", Conn: mustParse(f, "host=127.0.0.1 user=daypass sslmode=disable")})
	defer a.Close()
	f.Fuzz(func(t *testing.T, text string, version int, now float64) {
		for _, need := range []Need{{User: "alice", AutoCreate: true}, {User: "alice", Groups: []string{"analysts"}}, {User: "IAM:alice", Identity: true}} {
			st := &state{version: version, Now: now}
			if json.Unmarshal([]byte(text), st) != nil {
				return
			}
			n, err := need.normalize()
			if err != nil {
				t.Fatal(err)
			}
			r := request{need: n, names: sessionRoleNames(n.User, n.Groups, n.Identity)}
			if p, err := a.planFor(st, &r); err == nil && p.role == "" {
				t.Errorf("a plan for no role: %+v", p)
			}
		}
	})
}

func mustParse(t testing.TB, connString string) *pgx.ConnConfig {
	t.Helper()
	config, err := pgx.ParseConfig(connString)
	if err != nil {
		t.Fatal(err)
	}
	return config
}
