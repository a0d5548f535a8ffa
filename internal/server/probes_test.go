package server

import (
	"io"
	"net/http"
	"testing"
)

// TestProbesTakeHEAD: a balancer that probes with HEAD gets what GET gets, without the
// body, on both listeners, ready or not.
func TestProbesTakeHEAD(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", adminListener)
	s.start()
	for _, url := range []string{s.where.API + "/healthz", s.where.API + "/readyz", "http://" + s.where.Admin + "/healthz", "http://" + s.where.Admin + "/readyz"} {
		want, header, _ := s.get(url)
		response, err := http.Head(url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != want || response.Header.Get("Content-Type") != header.Get("Content-Type") || len(body) != 0 || err != nil {
			t.Errorf("HEAD %s: %d %v %q, want as GET: %d %v", url, response.StatusCode, response.Header, body, want, header)
		}
	}
}
