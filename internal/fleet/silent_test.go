package fleet_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daypass/daypass/internal/fleet"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/registry/registrytest"
)

// TestSilent: a server that is frozen or killed is still known to the others for an hour, because
// it may have sessions. One that left in order is not.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, roots := &registrytest.Memory{}, keyring.NewRoots()
		cut := cuttable(memory)
		a := start(t, memory, roots, "a", 0)
		frozen, killed, left := start(t, memory, roots, "b", 0), start(t, memory, roots, "c", 0), start(t, memory, roots, "d", 0)
		check := func(when string, want ...string) {
			t.Helper()
			var got []string
			all, live := a.Peers(), a.Servers()
			for _, s := range all {
				if s.Silent {
					got = append(got, s.ID)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v are silent, want %v", when, got, want)
			}
			if len(live)+len(got) != len(all) || slices.ContainsFunc(live, func(s fleet.Server) bool { return slices.Contains(got, s.ID) }) {
				t.Errorf("%s: live %+v, silent %v", when, live, got)
			}
		}
		time.Sleep(time.Second)
		check("while all are there")
		left.leaves.Store(true)
		left.Announce()
		time.Sleep(2 * time.Second)
		left.stop()
		killed.kill(memory)
		frozen.frozen.Store(true)
		time.Sleep(20 * time.Second)
		check("after 20 s", "b", "c")
		frozen.frozen.Store(false)
		time.Sleep(20 * time.Second)
		check("awake", "c")
		cut.Store(true)
		time.Sleep(20 * time.Second)
		check("with the registry away", "c")
		cut.Store(false)
		time.Sleep(20 * time.Second)
		check("with the registry back", "c")
		time.Sleep(2 * time.Hour)
		check("after hours")
	})
}
