package registrytest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/registry"
)

// LongPrincipal tests on a store that the credentials of a principal can be revoked however
// long its ARN is, up to AWS's limit, and that another registry on the same store reads the
// revocations.
func LongPrincipal(t *testing.T, store registry.Store) {
	open := func() *registry.Registry {
		r := registry.New(registry.Config{Store: store})
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		t.Cleanup(func() { stop(); <-done })
		if err := r.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		return r
	}
	const user = "arn:aws:iam::123456789012:user/"
	first := open()
	principals := []string{user + "ana"}
	for _, length := range []int{255, 256, 257, 607, 2048} {
		principals = append(principals, user+strings.Repeat("/", length-len(user)-3)+"ana")
	}
	for _, principal := range principals {
		if _, err := first.Revoke(t.Context(), registry.Revocation{Principal: principal, RevokedBy: principals[0]}); err != nil {
			t.Fatalf("an ARN of %d bytes: %v", len(principal), err)
		}
	}
	issued := time.Now().Add(-time.Minute)
	for name, r := range map[string]*registry.Registry{"the same": first, "another": open()} {
		for _, principal := range principals {
			if revoked, err := r.Revoked(registry.Credential{ID: "1", Principal: principal, IssuedAt: issued}); err != nil || !revoked {
				t.Errorf("%s: an ARN of %d bytes: revoked = %t, %v, want true", name, len(principal), revoked, err)
			}
			other := principal[:len(principal)-1] + "b"
			if revoked, err := r.Revoked(registry.Credential{ID: "1", Principal: other, IssuedAt: issued}); err != nil || revoked {
				t.Errorf("%s: another ARN of %d bytes: revoked = %t, %v, want false", name, len(principal), revoked, err)
			}
		}
	}
	if list, err := first.Revocations(t.Context()); err != nil || len(list) != len(principals) {
		t.Errorf("%d revocations, %v, want %d", len(list), err, len(principals))
	}
}
