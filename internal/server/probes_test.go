package server

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
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

// TestProof: a server proves to those who can read its lock file that it is the one that uses the data
// directory, on both listeners. It has another secret after a restart, and no proof for a request without a challenge,
// or with one that is too long.
func TestProof(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", adminListener)
	s.start()
	first, err := InspectData(filepath.Join(s.dir, "data"))
	if err != nil || !first.Running || len(first.Instance.Reveal()) < 26 {
		t.Fatalf("InspectData = %+v, %v, want a secret", first, err)
	}
	proof := func(url, challenge string) string {
		t.Helper()
		request, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set(ChallengeHeader, challenge)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.Header.Get(ProofHeader)
	}
	for _, url := range []string{s.where.API + "/readyz", "http://" + s.where.Admin + "/readyz"} {
		for challenge, want := range map[string]string{"": "", "one": Proof(first.Instance, "one"), strings.Repeat("x", 65): ""} {
			if got := proof(url, challenge); got != want {
				t.Errorf("%s proves %q with %q, want %q", url, challenge, got, want)
			}
		}
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s.start()
	second, err := InspectData(filepath.Join(s.dir, "data"))
	if err != nil || second.Instance == first.Instance || proof(s.where.API+"/readyz", "one") != Proof(second.Instance, "one") {
		t.Errorf("after a restart: %v, want another secret, which the server proves", err)
	}
	if err := s.tryStart(); err == nil || strings.Contains(err.Error(), second.Instance.Reveal()) {
		t.Errorf("a second server: %v, want an error without the secret", err)
	}
}
