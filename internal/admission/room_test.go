package admission_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daypass/daypass/internal/admission"
)

// guest is a visitor that a test plays.
type guest struct {
	*admission.Visitor
	out bool
}

func address(n int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}) }

func newGuest(a netip.Addr) *guest {
	g := &guest{}
	g.Visitor = admission.NewVisitor(a, func() { g.out = true })
	g.Listen()
	return g
}

// talk has the guest send something; the server waits for more.
func (g *guest) talk() { g.Heard(true); g.Listen() }

// let reports whether the room takes g in at once.
func let(r *admission.Room, g *guest) bool {
	wait, err := r.Enter(g.Visitor)
	return err == nil && wait == 0
}

// TestCrowdMakesRoom: one address fills the room with connections that never fall silent. A
// newcomer from another address need not wait until the patience with them is used up. If many
// addresses fill the room, it does have to wait.
func TestCrowdMakesRoom(t *testing.T) {
	const limit = 40
	for _, row := range []struct {
		name    string
		crowd   func(i int) netip.Addr
		talking time.Duration // how long those in the room have been talking
		want    bool
	}{
		{"one address", func(int) netip.Addr { return address(1) }, 300 * time.Millisecond, true},
		{"one address, on its way", func(int) netip.Addr { return address(1) }, 200 * time.Millisecond, false},
		{"a few addresses", func(i int) netip.Addr { return address(i % 2) }, 300 * time.Millisecond, true},
		{"many addresses", func(i int) netip.Addr { return address(i % 10) }, 300 * time.Millisecond, false},
		{"many addresses, for long", func(i int) netip.Addr { return address(i % 10) }, 2100 * time.Millisecond, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				room := admission.NewRoom(limit, limit)
				var crowd []*guest
				for i := range limit {
					g := newGuest(row.crowd(i))
					if !let(room, g) {
						t.Fatalf("no room for the visitor %d", i)
					}
					crowd = append(crowd, g)
				}
				for range int(row.talking / (100 * time.Millisecond)) {
					for _, g := range crowd {
						g.talk()
					}
					time.Sleep(100 * time.Millisecond)
				}
				got := let(room, newGuest(address(99)))
				left, want := 0, limit
				for _, g := range crowd {
					if !g.out {
						left++
					}
				}
				if row.want {
					want--
				}
				if got != row.want || left != want {
					t.Errorf("let in = %t, %d of the others left, want %t and %d", got, left, row.want, want)
				}
			})
		})
	}
}

// TestWhoMakesRoom: two visitors fill a room. After some time one of them makes room for a
// newcomer from another address; each row says which.
func TestWhoMakesRoom(t *testing.T) {
	silent := func(*guest) {}
	talks := func(g *guest) { g.talk() }
	half := func(g *guest) { g.talk(); time.Sleep(1500 * time.Millisecond) }
	drips := func(g *guest) {
		for range 30 {
			g.talk()
			time.Sleep(100 * time.Millisecond)
		}
	}
	rests := func(g *guest) { g.talk(); g.Serve(); g.Rest() }
	restsForLong := func(g *guest) { rests(g); time.Sleep(time.Minute) }
	begins := func(g *guest) { rests(g); time.Sleep(time.Minute); g.talk() }
	works := func(g *guest) { g.talk(); g.Serve(); time.Sleep(time.Minute) }
	answered := func(g *guest) { works(g); g.Served(); time.Sleep(1500 * time.Millisecond) }
	known := func(next func(*guest)) func(*guest) { return func(g *guest) { g.Known(); next(g) } }
	for _, row := range []struct {
		name          string
		first, second func(*guest)
		after         time.Duration
		want          string // who makes room
	}{
		{"both on their way", silent, talks, 200 * time.Millisecond, ""},
		{"one silent", talks, silent, 300 * time.Millisecond, "second"},
		{"one with half a request", half, talks, 0, "first"},
		{"one that drips", talks, drips, 0, "first"}, // the silent one has been overdue for longer
		{"one that drips, one that works", works, drips, 0, "second"},
		{"both at work", works, works, time.Hour, ""},
		{"one that rests", talks, rests, 0, "second"},
		{"the one that rests longer", restsForLong, rests, 0, "first"},
		{"one that rested and asks again", works, begins, 0, ""},
		{"one that does not take its answer", answered, works, 0, "first"},
		{"a stranger before one who is known", known(restsForLong), silent, 300 * time.Millisecond, "second"},
		{"a stranger is waited for, not one who is known", known(restsForLong), silent, 0, ""},
		{"one who is known, last", known(restsForLong), works, 0, "first"},
		{"one who is known and keeps waiting", known(half), works, 0, "first"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				room := admission.NewRoom(2, 2)
				first := newGuest(address(1))
				let(room, first)
				row.first(first)
				second := newGuest(address(2))
				let(room, second)
				row.second(second)
				time.Sleep(row.after)
				in := let(room, newGuest(address(3)))
				got := ""
				switch {
				case first.out && second.out:
					got = "both"
				case first.out:
					got = "first"
				case second.out:
					got = "second"
				}
				if got != row.want || in != (row.want != "") {
					t.Errorf("%q made room, let in = %t, want %q", got, in, row.want)
				}
			})
		})
	}
}

// TestShare: each address, or IPv6 /64, has its share. If a visitor of an address can be closed,
// it makes room for another one of that address.
func TestShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		room := admission.NewRoom(100, 2)
		v6 := func(last string) netip.Addr { return netip.MustParseAddr("2001:db8:0:1::" + last) }
		first := newGuest(v6("1"))
		for _, g := range []*guest{first, newGuest(v6("2"))} {
			if !let(room, g) {
				t.Fatal("no room within the share")
			}
			time.Sleep(time.Millisecond) // so that the first one has waited longest
		}
		if _, err := room.Enter(newGuest(v6("3")).Visitor); !errors.Is(err, admission.ErrShare) {
			t.Errorf("beyond the share: %v, want %v", err, admission.ErrShare)
		}
		if !let(room, newGuest(netip.MustParseAddr("2001:db8:0:2::1"))) {
			t.Error("the share of one network keeps another one out")
		}
		exempt := newGuest(v6("4"))
		exempt.Exempt = true
		if !let(room, exempt) {
			t.Error("a visitor that is not counted by address is refused for its address")
		}
		time.Sleep(patience)
		if !let(room, newGuest(v6("5"))) || !first.out {
			t.Error("a silent visitor does not make room for another one of its address")
		}
		if s := room.Stats(); s != (admission.Stats{Limit: 100, Open: 4, Refused: 1}) {
			t.Errorf("Stats() = %+v", s)
		}
	})
}

// patience is more than that of a room with a silent visitor.
const patience = 300 * time.Millisecond

// TestMove: a connection through a proxy counts for the address that the proxy names.
func TestMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		room := admission.NewRoom(100, 2)
		var refused int
		for range 5 {
			g := newGuest(address(1))
			g.Exempt = true
			if !let(room, g) {
				t.Fatal("a proxy's connection is refused")
			}
			switch err := room.Move(g.Visitor, address(7), false); {
			case errors.Is(err, admission.ErrShare):
				refused++
			case err != nil:
				t.Fatal(err)
			}
		}
		if s := room.Stats(); refused != 3 || s.Open != 2 {
			t.Errorf("%d refused and %d open, want 3 and 2", refused, s.Open)
		}
	})
}

// TestAdmitWaits: a newcomer waits until a place can be made, but no longer than its context
// allows.
func TestAdmitWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		room := admission.NewRoom(1, 1)
		busy := newGuest(address(1))
		let(room, busy)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := room.Admit(ctx, newGuest(address(2)).Visitor); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Admit() = %v while all are busy", err)
		}
		began := time.Now()
		if err := room.Admit(t.Context(), newGuest(address(2)).Visitor); err != nil || !busy.out {
			t.Errorf("Admit() = %v, and the silent visitor is out: %t", err, busy.out)
		}
		if waited := time.Since(began); waited > 250*time.Millisecond {
			t.Errorf("it waited %v for a silent visitor", waited)
		}
		room.Close()
		if err := room.Admit(t.Context(), newGuest(address(3)).Visitor); !errors.Is(err, admission.ErrClosed) {
			t.Errorf("Admit() = %v of a closed room, want %v", err, admission.ErrClosed)
		}
	})
}
