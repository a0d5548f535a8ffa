package api_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/api"
)

// BenchmarkGetClusterCredentials is one call from the parsed HTTP request to the written
// answer, without the network and the audit file. Every principal has its own key and the
// same policies as ana in example; the callers take turns.
func BenchmarkGetClusterCredentials(b *testing.B) {
	for _, principals := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("principals=%d", principals), func(b *testing.B) {
			spec := example(b)
			own, analysts := spec.Users[1].Inline[0], spec.Users[1].Inline[1]
			spec.Users = nil
			for i := range principals {
				spec.Users = append(spec.Users, user(fmt.Sprintf("u%05d", i), own, analysts))
			}
			s := &server{t: b, url: "http://127.0.0.1", directory: build(b, spec), now: start, silent: true}
			s.keyring = newKeyring()
			handler := api.New(s.config())
			callers := min(principals, 1000)
			bodies, requests := make([]string, callers), make([]*http.Request, callers)
			for i := range requests {
				name := fmt.Sprintf("u%05d", i*(principals/callers))
				bodies[i] = query("2012-12-01", "Action", "GetClusterCredentials", "DbUser", name,
					"ClusterIdentifier", "examplecluster", "DbName", "dev", "DbGroups.DbGroup.1", "analysts", "AutoCreate", "true")
				requests[i] = s.signed(name, "redshift", "POST", bodies[i])
				requests[i].Host, requests[i].RemoteAddr = requests[i].URL.Host, "127.0.0.1:4711"
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				r := requests[i%callers]
				r.Body = io.NopCloser(strings.NewReader(bodies[i%callers]))
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					b.Fatalf("got %d %s", w.Code, w.Body)
				}
			}
		})
	}
}

// TestCallAllocations bounds what a call allocates. Memory is a large part of its cost: what is
// allocated has to be collected, and is in none of the processor's caches.
func TestCallAllocations(t *testing.T) {
	s := &server{t: t, url: "http://127.0.0.1", directory: build(t, example(t)), now: start, silent: true}
	s.keyring = newKeyring()
	handler := api.New(s.config())
	body := query("2012-12-01", "Action", "GetClusterCredentials", "DbUser", "ana",
		"ClusterIdentifier", "examplecluster", "DbName", "dev", "DbGroups.DbGroup.1", "analysts", "AutoCreate", "true")
	r := s.signed("ana", "redshift", "POST", body)
	r.Host, r.RemoteAddr = r.URL.Host, "127.0.0.1:4711"
	count := testing.AllocsPerRun(100, func() {
		r.Body = io.NopCloser(strings.NewReader(body))
		w := httptest.NewRecorder()
		if handler.ServeHTTP(w, r); w.Code != http.StatusOK {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
	})
	const most = 75 // 63 with Go 1.26; more when the race detector empties pools
	if count > most {
		t.Errorf("a call makes %v allocations, and %d are allowed", count, most)
	}
}
