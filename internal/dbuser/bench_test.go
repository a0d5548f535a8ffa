package dbuser_test

import (
	"fmt"
	"testing"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/pgtest"
)

// BenchmarkEnsure measures what Ensure adds to a logon, for a known user and for a new one.
func BenchmarkEnsure(b *testing.B) {
	s := pgtest.Start(b)
	f := plain(b, s)
	alice, groups := f.LentUser("alice", ""), []string{f.LentGroup("analysts"), f.LentGroup("finance")}
	f.Run("alter role %s set work_mem = '5MB'", alice)
	for _, n := range []dbuser.Need{{User: alice}, {User: alice, Groups: groups}} {
		f.Ensure(n)
		b.Run(fmt.Sprintf("known/groups=%d", len(n.Groups)), func(b *testing.B) {
			for b.Loop() {
				if _, err := f.Admin.Ensure(b.Context(), n); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("known/groups=%d/parallel", len(n.Groups)), func(b *testing.B) {
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := f.Admin.Ensure(b.Context(), n); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
	b.Run("new", func(b *testing.B) {
		prefix, i := f.Name("fresh"), 0
		for b.Loop() {
			i++
			if _, err := f.Admin.Ensure(b.Context(), dbuser.Need{User: fmt.Sprintf("%s_%d", prefix, i), AutoCreate: true}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
