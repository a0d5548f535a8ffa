package server

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/test/pgtest"
)

// TestMetricsForOtherMachines: the listener for other machines serves metrics, and none of the
// other pages of the operator's listener.
func TestMetricsForOtherMachines(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", "\nmetrics: {listen: \"0.0.0.0:0\"}\n")
	s.start()
	_, port, _ := strings.Cut(s.where.Metrics, "]:")
	at := "http://127.0.0.1:" + port
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "10.1.2.3:9441" // a pod's address, as Prometheus has it
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("/metrics = %d, want 200", response.StatusCode)
	}
	if _, _, body := s.get(at + "/metrics"); !strings.Contains(body, "daypass_build_info") {
		t.Errorf("/metrics has no daypass_build_info:\n%s", body)
	}
	for _, path := range []string{"/", "/readyz", "/healthz", "/debug/pprof/", "/debug/pprof/cmdline"} {
		if status, _, body := s.get(at + path); status != http.StatusNotFound {
			t.Errorf("%s = %d %s, want 404", path, status, body)
		}
	}
	if s.where.Admin != "" {
		t.Errorf("the operator's listener is at %s, want none", s.where.Admin)
	}
}

// TestStrangersTakeNotAllMetrics: connections from a few addresses that rest after a request keep no one
// else from the metrics.
func TestStrangersTakeNotAllMetrics(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", "\nmetrics: {listen: \"127.0.0.1:0\"}\n")
	s.start()
	from := func(last byte) net.Conn {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, last)}}
		conn, err := dialer.DialContext(t.Context(), "tcp", s.where.Metrics)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	scrape := func(conn net.Conn) error {
		conn.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, response.Body)
		return err
	}
	for i := range 2 * metricsConnections {
		if err := scrape(from(byte(2 + i%8))); err != nil {
			t.Fatalf("stranger %d: %v", i, err)
		}
	}
	if err := scrape(from(1)); err != nil {
		t.Errorf("Prometheus: %v", err)
	}
}

// TestKeyringElsewhere: with the key keyring in the configuration, data contains no keyring, and
// replacing the file changes the keys without a restart.
func TestKeyringElsewhere(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", "\nkeyring: mounted/keyring.json\nadmin: {listen: \"127.0.0.1:0\"}\n")
	file := filepath.Join(s.dir, "mounted", "keyring.json")
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	s.start()
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "data", "keyring.json")); err == nil {
		t.Error("there is a keyring in data, too")
	}
	if s.issue(time.Now()).DbPassword == "" {
		t.Error("no credential")
	}
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "a warning of the file", func() bool {
		_, _, body := s.get("http://" + s.where.Admin + "/readyz")
		return strings.Contains(body, "the keyring file was refused")
	})
}
