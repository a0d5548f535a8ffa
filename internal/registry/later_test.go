package registry_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/registrytest"
)

// TestRecordsOfLaterReleases: while servers are upgraded one after the other, the old ones refuse at
// least what a later release's revocations revoke, and nothing that their keys do not select. They
// do not delete records that they do not understand.
func TestRecordsOfLaterReleases(t *testing.T) {
	long := "arn:aws:iam::123456789012:user/" + strings.Repeat("x", 300)
	const early, late = "2026-01-02T03:04:05Z", "2026-01-02T03:04:09Z"
	at := func(text string) time.Time {
		when, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	ana := registry.Credential{ID: "c1", Principal: "arn:aws:iam::123456789012:user/ana", Cluster: "east", DBUser: "alice", IssuedAt: at(early)}
	ben := registry.Credential{ID: "c2", Principal: "arn:aws:iam::123456789012:user/ben", Cluster: "west", DBUser: "bob", IssuedAt: at(early)}
	lengthy := ben
	lengthy.Principal = long
	fresh := ana
	fresh.IssuedAt = at(late)
	for name, row := range map[string]struct {
		key, value       string
		revoked, allowed []registry.Credential
	}{
		"version 1, a new name": {"all", `{"version":1,"all":true,"why":"x","issued_before":"` + late + `","revoked_at":"` + late + `"}`,
			[]registry.Credential{ana, ben}, []registry.Credential{fresh}},
		"all":        {"all", `{"version":2,"issued_before":"` + late + `"}`, []registry.Credential{ana, ben}, []registry.Credential{fresh}},
		"credential": {"credential/c1", `{"version":2,"credential_id":["c1"]}`, []registry.Credential{ana, fresh}, []registry.Credential{ben}},
		"principal": {"principal/arn:aws:iam::123456789012:user%2Fana", `{"version":2,"issued_before":"` + late + `","from":"10.0.0.0/8"}`,
			[]registry.Credential{ana}, []registry.Credential{ben, fresh}},
		"principal, no time":   {"principal/arn:aws:iam::123456789012:user%2Fana", `{"version":2}`, []registry.Credential{ana, fresh}, []registry.Credential{ben}},
		"principal, odd times": {"principal/arn:aws:iam::123456789012:user%2Fana", `{"version":2,"issued_before":7,"revoked_at":{}}`, []registry.Credential{ana, fresh}, []registry.Credential{ben}},
		"database user":        {"dbuser/east/alice", `{"version":3,"issued_before":"` + late + `"}`, []registry.Credential{ana}, []registry.Credential{ben, fresh}},
		"database user, any":   {"dbuser//alice", `{"version":3,"issued_before":"` + late + `"}`, []registry.Credential{ana}, []registry.Credential{ben, fresh}},
		"cluster":              {"cluster/east", `{"version":2,"issued_before":"` + late + `"}`, []registry.Credential{ana}, []registry.Credential{ben, fresh}},
		"long principal": {strings.TrimPrefix(keyOf(t, registry.Revocation{Principal: long}), "revocation/"),
			`{"version":2,"principal":"` + long + `","issued_before":"` + late + `"}`, []registry.Credential{lengthy}, []registry.Credential{ana, ben}},
		"long principal, unnamed": {strings.TrimPrefix(keyOf(t, registry.Revocation{Principal: long}), "revocation/"),
			`{"version":2,"issued_before":"` + late + `"}`, []registry.Credential{lengthy, ana}, []registry.Credential{fresh}},
		"another kind of key": {"group/analysts", `{"version":2,"issued_before":"` + late + `"}`, []registry.Credential{ana, ben}, []registry.Credential{fresh}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &registrytest.Memory{}
				r := ready(t, run(t, registry.Config{Store: store}))
				if _, err := store.Create(t.Context(), "revocation/"+row.key, []byte(row.value)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				check := func(when string) {
					t.Helper()
					for _, c := range row.revoked {
						if revoked, err := r.Revoked(c); !revoked || err != nil {
							t.Errorf("%s: Revoked(%+v) = %t, %v", when, c, revoked, err)
						}
					}
					for _, c := range row.allowed {
						if revoked, err := r.Revoked(c); revoked || err != nil {
							t.Errorf("%s: Revoked(%+v) = %t, %v", when, c, revoked, err)
						}
					}
				}
				check("at once")
				if list, err := r.Revocations(t.Context()); err != nil || len(list) != 1 {
					t.Errorf("Revocations() = %+v, %v", list, err)
				}
				time.Sleep(14 * time.Hour)
				synctest.Wait()
				if !strings.Contains(row.value, `"version":1`) {
					check("a day later")
				}
			})
		})
	}
	t.Run("revoked here too", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := &registrytest.Memory{}
			r := ready(t, run(t, registry.Config{Store: store}))
			if _, err := store.Create(t.Context(), "revocation/cluster/east", []byte(`{"version":2,"issued_before":"`+early+`"}`)); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Revoke(t.Context(), registry.Revocation{Cluster: "east"}); err != nil {
				t.Fatal(err)
			}
			now := ana
			now.IssuedAt = time.Now().Add(-time.Second)
			if revoked, err := r.Revoked(now); !revoked || err != nil {
				t.Errorf("Revoked() = %t, %v", revoked, err)
			}
		})
	})
}

// keyOf returns the key of the record that a revocation gets.
func keyOf(t *testing.T, revocation registry.Revocation) (key string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := &registrytest.Memory{}
		if _, err := ready(t, run(t, registry.Config{Store: store})).Revoke(t.Context(), revocation); err != nil {
			t.Fatal(err)
		}
		records, err := store.List(t.Context(), "revocation/")
		if err != nil || len(records) != 1 {
			t.Fatal(records, err)
		}
		key = records[0].Key
	})
	return key
}
