package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/daypass/daypass/test/pgtest"
	"github.com/daypass/daypass/test/sitetest"
)

// replace replaces text in the configuration file.
func (s *served) replace(old, new string) {
	s.t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	if !bytes.Contains(text, []byte(old)) {
		s.t.Fatalf("the configuration has no %q", old)
	}
	if err := os.WriteFile(s.config, bytes.Replace(text, []byte(old), []byte(new), 1), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// headed is a connection that sends header together with its first bytes. If the header were sent
// first, the server could refuse it and answer before http.Transport has sent its request.
// http.Transport drops such an answer.
type headed struct {
	net.Conn
	header string
}

func (h *headed) Write(b []byte) (int, error) {
	n, err := h.Conn.Write(append([]byte(h.header), b...))
	n = max(n-len(h.header), 0)
	h.header = ""
	return n, err
}

// TestSourceIPBehindProxies: conditions on aws:SourceIp, and the audit log, see the client's
// address behind a balancer that speaks the PROXY protocol, and behind a proxy whose
// X-Forwarded-For is trusted. Other headers are not trusted, and the lists change with the
// file.
func TestSourceIPBehindProxies(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", "")
	s.replace("limits: {rate: 0}", "limits: {rate: 0}, proxy_protocol: {from: [127.0.5.1]}, trusted_proxies: [198.51.100.9]")
	s.replace("              Action: redshift:DescribeClusters\n              Resource: \"*\"\n",
		"              Action: redshift:DescribeClusters\n              Resource: \"*\"\n              Condition: {IpAddress: {\"aws:SourceIp\": 192.0.2.0/24}}\n")
	s.start()
	ask := func(from byte, header, forwarded string) (status int, recorded string) {
		t.Helper()
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 5, from)}}
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			return &headed{conn, header}, err
		}}}
		body := url.Values{"Action": {"DescribeClusters"}, "Version": {"2012-12-01"}}.Encode()
		r, err := http.NewRequest("POST", s.where.API+"/", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		sum := sha256.Sum256([]byte(body))
		if err := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: sitetest.Keys["ana"][0], SecretAccessKey: sitetest.Keys["ana"][1]}, r,
			hex.EncodeToString(sum[:]), "redshift", "us-east-1", s.now()); err != nil {
			t.Fatal(err)
		}
		if forwarded != "" {
			r.Header.Set("X-Forwarded-For", forwarded)
		}
		response, err := client.Do(r)
		if err != nil {
			return 0, ""
		}
		response.Body.Close()
		files, err := filepath.Glob(filepath.Join(s.dir, "data", "audit", "*.jsonl"))
		if err != nil || len(files) == 0 {
			t.Fatal("no audit log")
		}
		lines := bytes.Split(bytes.TrimSpace(wholeLines(t, files[len(files)-1])), []byte("\n"))
		var line struct{ SourceIPAddress string }
		if err := json.Unmarshal(lines[len(lines)-1], &line); err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, line.SourceIPAddress
	}
	const client = "PROXY TCP4 192.0.2.7 10.0.0.1 50432 443\r\n"
	type row struct {
		name      string
		from      byte
		header    string
		forwarded string
		status    int
		source    string
	}
	check := func(rows ...row) {
		t.Helper()
		for _, row := range rows {
			if status, source := ask(row.from, row.header, row.forwarded); status != row.status || source != row.source {
				t.Errorf("%s: %d from %s, want %d from %s", row.name, status, source, row.status, row.source)
			}
		}
	}
	check(
		row{"the balancer's client", 1, client, "", 200, "192.0.2.7"},
		row{"another client of the balancer", 1, "PROXY TCP4 203.0.113.7 10.0.0.1 50432 443\r\n", "", 403, "203.0.113.7"},
		row{"a client of the balancer that claims another address", 1, "PROXY TCP4 203.0.113.7 10.0.0.1 50432 443\r\n", "192.0.2.7", 403, "203.0.113.7"},
		row{"a trusted proxy behind the balancer", 1, "PROXY TCP4 198.51.100.9 10.0.0.1 50432 443\r\n", "203.0.113.1, 192.0.2.7", 200, "192.0.2.7"},
		row{"the balancer itself", 1, "PROXY UNKNOWN\r\n", "192.0.2.7", 403, "127.0.5.1"},
		row{"the balancer without a header", 1, "", "", 0, ""},
		row{"someone else", 2, "", "192.0.2.7", 403, "127.0.5.2"},
	)
	// A PROXY protocol header from any other address is an invalid HTTP request.
	if status, _ := ask(2, client, ""); status != 400 {
		t.Errorf("a header of someone else: %d, want 400", status)
	}
	pgtest.Eventually(t, "the log tells of the connection without a header", func() bool {
		return strings.Contains(s.log.String(), "has to send the PROXY protocol first")
	})
	s.replace("{from: [127.0.5.1]}", "{from: [127.0.5.2]}")
	s.hangup <- syscall.SIGHUP
	pgtest.Eventually(t, "the file is read again", func() bool { return strings.Contains(s.log.String(), "configuration reloaded") })
	check(
		row{"the new balancer", 2, client, "", 200, "192.0.2.7"},
		row{"the old one", 1, "", "", 403, "127.0.5.1"},
	)
}
