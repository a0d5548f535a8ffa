package etcdstore_test

import (
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/etcdstore"
	"github.com/daypass/daypass/test/etcdtest"
)

// TestSlow: an etcd whose answers take a second does not end a watch, and the watch does not claim
// to know more than what etcd said a second ago.
func TestSlow(t *testing.T) {
	t.Parallel()
	const late = time.Second
	server := etcdtest.Start(t)
	line := etcdtest.NewLine(t, server.Host)
	line.Delay(late)
	s := open(t, etcdstore.Config{Endpoints: []string{line.URL}})
	w, direct := watch(t, s), open(t, at(server))
	w.seesRecords("")
	record := create(t, direct, "a", "1")
	until := time.Now().Add(3 * time.Second)
	w.seesRecords("a=1")
	for beats := 0; time.Now().Before(until) || beats < 5; beats++ {
		got := w.sees("a sight", func(sight) bool { return true })
		if age := got.at.Sub(got.asOf); age < late {
			t.Errorf("what etcd said at least %v ago is reported as %v old", late, age)
		}
	}
	create(t, direct, "b", "2")
	w.seesRecords("a=1 b=2")
	if err := direct.Delete(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	w.seesRecords("b=2")
}

// TestLateAnswer: an answer that was delayed on its way confirms the records as of the time of the
// request, not as of its arrival.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	line := etcdtest.NewLine(t, server.Host)
	s := open(t, etcdstore.Config{Endpoints: []string{line.URL}})
	w := watch(t, s)
	w.seesRecords("")
	w.sees("a beat", beat)
	line.Stall(true)
	time.Sleep(registry.StaleAfter / 2)
	create(t, open(t, at(server)), "a", "1")
	created := time.Now()
	line.Stall(false)
	for {
		got := w.sees("a sight", func(sight) bool { return true })
		if got.asOf.After(got.at) {
			t.Error("reported as of a later time")
		}
		if strings.Contains(got.records, "a=1") {
			return
		}
		if got.asOf.After(created) {
			t.Errorf("what was so before the record was created is reported as of %v after", got.asOf.Sub(created))
		}
	}
}
