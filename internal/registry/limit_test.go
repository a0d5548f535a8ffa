package registry_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/registrytest"
)

func TestLongPrincipal(t *testing.T) { registrytest.LongPrincipal(t, &registrytest.Memory{}) }

// TestTooMany: the sessions of one principal share a limit. Reaching it does not affect other
// principals, repeating a revocation does not count, a revocation of all credentials is
// always accepted, and after an hour revocations are possible again.
func TestTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead time.Duration // how far the clock of revocations is ahead
		r := ready(t, run(t, registry.Config{Store: &registrytest.Memory{}, Now: func() time.Time { return time.Now().Add(ahead) }}))
		revoke := func(revocation registry.Revocation, by string) error {
			revocation.RevokedBy = by
			_, err := r.Revoke(t.Context(), revocation)
			return err
		}
		one := func(i int) registry.Revocation {
			switch i % 3 {
			case 0:
				return registry.Revocation{CredentialID: fmt.Sprintf("01JG3F5D4T0A1B2C3D4E%06d", i)}
			case 1:
				return registry.Revocation{Principal: fmt.Sprintf("%s%d", session, i)}
			}
			return registry.Revocation{DBUser: fmt.Sprintf("user%d", i), Cluster: "east"}
		}
		by := func(i int) string { return fmt.Sprintf("arn:aws:sts::123456789012:assumed-role/oncall/session%d", i%7) }
		for i := range registry.MaxByOne {
			if err := revoke(one(i), by(i)); err != nil {
				t.Fatalf("revocation %d: %v", i, err)
			}
		}
		if err := revoke(one(registry.MaxByOne), by(3)); !errors.Is(err, registry.ErrTooMany) {
			t.Errorf("one too many: %v, want ErrTooMany", err)
		}
		for name, revocation := range map[string]registry.Revocation{"the same again": one(5), "all of a cluster": {Cluster: "east"}, "all": {All: true}} {
			if err := revoke(revocation, by(0)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := revoke(one(registry.MaxByOne), ana); err != nil {
			t.Errorf("another principal: %v", err)
		}
		ahead = registry.Keep + time.Minute
		if err := revoke(one(registry.MaxByOne+1), by(0)); err != nil {
			t.Errorf("an hour later: %v", err)
		}
	})
}

// TestTooManyAtOnce: concurrent calls cannot exceed the limit.
func TestTooManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := ready(t, run(t, registry.Config{Store: &registrytest.Memory{}}))
		var calls sync.WaitGroup
		var mu sync.Mutex
		taken := 0
		for i := range 2 * registry.MaxByOne {
			calls.Go(func() {
				_, err := r.Revoke(t.Context(), registry.Revocation{CredentialID: fmt.Sprintf("01JG%06d", i), RevokedBy: ana})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					taken++
				case !errors.Is(err, registry.ErrTooMany):
					t.Error(err)
				}
			})
		}
		calls.Wait()
		if taken > registry.MaxByOne || taken < registry.MaxByOne/2 {
			t.Errorf("%d were taken, want %d at most", taken, registry.MaxByOne)
		}
	})
}

// TestTooManyInAll: when many principals have reached the total limit, one with few
// revocations may still add some.
func TestTooManyInAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &registrytest.Memory{}
		for i := range registry.MaxInAll {
			key := fmt.Sprintf("01JG%06d", i)
			value := fmt.Sprintf(`{"version":1,"credential_id":%q,"revoked_at":%q,"revoked_by":"arn:aws:iam::123456789012:user/u%d"}`,
				key, time.Now().UTC().Format(time.RFC3339), i%(registry.MaxInAll/registry.MaxByOne*2))
			if _, err := store.Create(t.Context(), "revocation/credential/"+key, []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		r := ready(t, run(t, registry.Config{Store: store}))
		revoke := func(i int, by string) error {
			_, err := r.Revoke(t.Context(), registry.Revocation{CredentialID: fmt.Sprintf("NEW%06d", i), RevokedBy: by})
			return err
		}
		if err := revoke(0, "arn:aws:iam::123456789012:user/u1"); !errors.Is(err, registry.ErrTooMany) {
			t.Errorf("one who has many: %v, want ErrTooMany", err)
		}
		for i := range registry.MaxReserved {
			if err := revoke(i+1, ana); err != nil {
				t.Fatalf("the revocation %d of one who has none: %v", i, err)
			}
		}
		if err := revoke(registry.MaxReserved+1, ana); !errors.Is(err, registry.ErrTooMany) {
			t.Errorf("one who has some by now: %v, want ErrTooMany", err)
		}
	})
}

// TestOldRecords: records of older versions are in force, even if they have names that would
// be refused today.
func TestOldRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now().UTC()
		store := &registrytest.Memory{}
		arn := "arn:aws:iam::123456789012:user/" + strings.Repeat("p", 200) + "/ana"
		for key, selector := range map[string]string{
			"revocation/dbuser//al%20ice":                                 `"db_user":"al ice"`,
			"revocation/principal/" + strings.ReplaceAll(arn, "/", "%2F"): `"principal":"` + arn + `"`,
			"revocation/principal/somebody":                               `"principal":"somebody"`,
		} {
			value := fmt.Sprintf(`{"version":1,%s,"issued_before":%q,"revoked_at":%q}`, selector, now.Format(time.RFC3339), now.Format(time.RFC3339))
			if _, err := store.Create(t.Context(), key, []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		r := ready(t, run(t, registry.Config{Store: store}))
		for _, c := range []registry.Credential{
			{ID: "1", Principal: ana, DBUser: "al ice"}, {ID: "2", Principal: arn, DBUser: "a"}, {ID: "3", Principal: "somebody", DBUser: "a"},
		} {
			c.IssuedAt = now.Add(-time.Minute)
			if revoked, err := r.Revoked(c); err != nil || !revoked {
				t.Errorf("Revoked(%+v) = %t, %v, want true", c, revoked, err)
			}
		}
		// Revoking the same principal again replaces the same record.
		if _, err := r.Revoke(t.Context(), registry.Revocation{Principal: arn}); err != nil {
			t.Error(err)
		}
		if list, err := r.Revocations(t.Context()); err != nil || len(list) != 3 {
			t.Errorf("%d revocations, %v, want 3", len(list), err)
		}
	})
}
