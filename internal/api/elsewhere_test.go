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
	if answers["AccessDenied"] != int(waiting) || answers["Throttling"] != count-int(waiting) {
		t.Errorf("the answers are %v, while %d asked", answers, waiting)
	}
}
