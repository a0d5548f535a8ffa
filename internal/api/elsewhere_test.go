package api_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestServersThatHang: a caller who may do nothing asks for sessions while another server hangs. That
// takes no places from calls that need no other server, and few from others' questions.
func TestServersThatHang(t *testing.T) {
	spec := operators(t)
	spec.Users = append(spec.Users, user("nothing"), user("own", policy(t, "own", ownSessions)))
	s := newSite(t, spec)
	s.hang = make(chan struct{})
	var calls sync.WaitGroup
	answer := sync.OnceFunc(func() { close(s.hang) })
	defer calls.Wait()
	defer answer()
	var mu sync.Mutex
	answers := map[string]int{}
	count := 40 * runtime.GOMAXPROCS(0) // more than there are places
	for i := range count {
		calls.Go(func() {
			a := s.call("nothing", "Action", "TerminateSession", "SessionId", fmt.Sprint("NONE", i))
			mu.Lock()
			defer mu.Unlock()
			answers[a.fault(t).Code]++
		})
	}
	answered := func() int {
		mu.Lock()
		defer mu.Unlock()
		return answers["Throttling"] + answers["ServiceUnavailable"]
	}
	for end := time.Now().Add(30 * time.Second); int(s.asked.Load())+answered() < count; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d calls wait, and %d are answered", s.asked.Load(), answered())
		}
	}
	if a := s.redshiftCall("root", "Action", "DescribeClusters"); a.status != 200 {
		t.Errorf("a call that needs no other server: %d %s", a.status, a.body)
	}
	waiting := s.asked.Load()
	calls.Go(func() {
		if a := s.call("own", "Action", "ListSessions"); a.status != 200 {
			t.Errorf("another caller's question: %d %s", a.status, a.body)
		}
	})
	for end := time.Now().Add(30 * time.Second); s.asked.Load() == waiting; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("another caller's question is not asked")
		}
	}
	answer()
	calls.Wait()
	if answers["AccessDenied"] > int(waiting) || answers["Throttling"] == 0 {
		t.Errorf("the answers are %v, while %d asked", answers, waiting)
	}
}

// TestRegistryThatStalls: while the registry does not answer, those who revoke wait, and no one else.
func TestRegistryThatStalls(t *testing.T) {
	s := newSite(t, operators(t))
	stall := make(chan struct{})
	s.stall.Store(&stall)
	var calls sync.WaitGroup
	answer := sync.OnceFunc(func() { close(stall) })
	defer calls.Wait()
	defer answer()
	count := 40 * runtime.GOMAXPROCS(0) // more than there are places
	for i := range count {
		calls.Go(func() {
			if a := s.call("root", "Action", "RevokeCredentials", "DbUser", fmt.Sprint("user", i)); a.status != 200 && a.status != 503 { // on a busy machine
				t.Errorf("a revocation: %d %s", a.status, a.body)
			}
		})
	}
	for end := time.Now().Add(30 * time.Second); int(s.arrived.Load()) < count || s.handler.Pressure().Work.Busy > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d calls that wait for the registry keep %d places", s.arrived.Load(), s.handler.Pressure().Work.Busy)
		}
	}
	if a := s.redshiftCall("root", "Action", "DescribeClusters"); a.status != 200 {
		t.Errorf("a call that needs no registry: %d %s", a.status, a.body)
	}
}
