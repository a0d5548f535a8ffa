//go:build linux

package main

import (
	"os"
	"testing"
	"time"
)

func TestTenancies(t *testing.T) {
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	p := process{4711, "1"}
	alive := func(process) bool { return true }
	for _, row := range []struct {
		name  string
		do    func(t *tenancies)
		key   string
		next  float64 // when the next logon begins
		fault bool
		lives float64 // until when the process may live, if no logon gets it
	}{
		{"left in good order", func(t *tenancies) { t.leave(p, true, at(1)) }, "ana", 5, false, 19},
		{"another principal", func(t *tenancies) { t.leave(p, true, at(1)) }, "kim", 5, true, 19},
		{"still used", func(*tenancies) {}, "ana", 5, true, 1e6},
		{"left in a transaction", func(t *tenancies) { t.leave(p, false, at(1)) }, "ana", 5, true, 19},
		{"not used for long", func(t *tenancies) { t.leave(p, true, at(1)) }, "ana", 15, true, 19},
		{"old", func(t *tenancies) { t.leave(p, true, at(179)) }, "ana", 182, true, 197},
		{"revoked", func(t *tenancies) { t.leave(p, true, at(1)); t.revoke("c", at(2)) }, "ana", 3.5, true, 8},
		{"another is revoked", func(t *tenancies) { t.leave(p, true, at(1)); t.revoke("d", at(2)) }, "ana", 3.5, false, 19},
		{"revoked while used", func(t *tenancies) { t.revoke("c", at(2)); t.leave(p, true, at(4)) }, "ana", 4.1, true, 10},
		{"changed", func(t *tenancies) { t.leave(p, true, at(1)); t.change("u", at(2)) }, "ana", 2.1, true, 8},
		{"expired", func(t *tenancies) { t.leave(p, true, at(99)) }, "ana", 102, true, 106},
	} {
		begin := func() *tenancies {
			l := newTenancies()
			expires := at(100)
			if row.name == "old" {
				expires = at(900)
			}
			if fault := l.use(p, "ana", "c", "u", at(0), at(0), expires); fault != "" {
				t.Fatal(fault)
			}
			row.do(l)
			return l
		}
		if fault := begin().use(p, row.key, "e", "u", at(row.next), at(row.next), at(1000)); (fault != "") != row.fault {
			t.Errorf("%s: use() = %q, want a fault: %v", row.name, fault, row.fault)
		}
		l := begin()
		if list := l.overdue(at(row.lives-0.1), alive); len(list) != 0 {
			t.Errorf("%s: %v is overdue too early", row.name, list)
		}
		if list := l.overdue(at(row.lives+0.1), alive); len(list) != 1 && row.lives < 1e6 {
			t.Errorf("%s: nothing is overdue", row.name)
		}
		if list := l.overdue(at(row.lives+1), alive); len(list) != 0 {
			t.Errorf("%s: reported twice", row.name)
		}
		l.overdue(at(row.lives), func(process) bool { return false })
		if len(l.held) != 0 {
			t.Errorf("%s: a process that ended is not forgotten", row.name)
		}
	}
}

// TestTenanciesKeepEveryCredential: the expiry and the revocation of an earlier credential count.
func TestTenanciesKeepEveryCredential(t *testing.T) {
	now := time.Now()
	p := process{4711, "1"}
	l := newTenancies()
	for i, id := range []string{"a", "b", "c"} {
		if fault := l.use(p, "ana", id, "u", now, now, now.Add(time.Duration(10+i)*time.Second)); fault != "" {
			t.Fatal(fault)
		}
		l.leave(p, true, now)
	}
	if was := l.held[p]; !was.expires.Equal(now.Add(10 * time.Second)) {
		t.Errorf("expires %v, want that of the first", was.expires)
	}
	if l.revoke("a", now); l.use(p, "ana", "d", "u", now.Add(2*time.Second), now, now.Add(time.Hour)) == "" {
		t.Error("the first credential is revoked and its session is used")
	}
	if l.reused != 3 {
		t.Errorf("%d logons got a process that was used before, want 3", l.reused)
	}
}

func TestServerProcess(t *testing.T) {
	a, ok := serverProcess(os.Getpid())
	b, also := serverProcess(os.Getpid())
	if !ok || !also || a != b || a.started == "" {
		t.Errorf("this process is %v, then %v", a, b)
	}
	if _, ok := serverProcess(1 << 30); ok {
		t.Error("a process that does not exist was found")
	}
}
