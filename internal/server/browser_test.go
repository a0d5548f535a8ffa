package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// exchange sends a request exactly as written, and returns the answer.
func exchange(t *testing.T, address, request string) (status int, header http.Header, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, _ := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(data)
}

// TestAdminIsNotForWebPages: a web page in a browser on this machine cannot use the admin
// listener, neither from its own site nor through a host name that resolves to 127.0.0.1.
// Command-line tools, and people who open it in a browser, can.
func TestAdminIsNotForWebPages(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", adminListener)
	s.start()
	_, port, err := net.SplitHostPort(s.where.Admin)
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{"/debug/pprof/heap?debug=1", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/metrics", "/readyz", "/healthz", "/nowhere"}
	for _, row := range []struct {
		lines string // of the header
		want  int
	}{
		{"Host: 127.0.0.1:PORT", 200},
		{"Host: 127.0.0.1", 200},
		{"Host: localhost:PORT", 200},
		{"Host: LocalHost:1", 200},
		{"Host: [::1]:PORT", 200},
		{"Host: [::1]", 200},
		{"Host: 127.0.0.2:PORT", 200},
		{"Host: localhost:PORT\r\nSec-Fetch-Site: none", 200},
		{"Host: localhost:PORT\r\nSec-Fetch-Site: same-origin\r\nOrigin: http://localhost:PORT", 200},
		{"Host: evil.example:PORT", 421},
		{"Host: evil.example", 421},
		{"Host: evil.example:PORT\r\nSec-Fetch-Site: same-origin\r\nOrigin: http://evil.example:PORT", 421},
		{"Host: localhost.evil.example:PORT", 421},
		{"Host: 127.0.0.1.evil.example:PORT", 421},
		{"Host: evil.localhost:PORT", 421},
		{"Host: 192.0.2.1:PORT", 421},
		{"Host: 0.0.0.0:PORT", 421},
		{"Host: localhost:PORT\r\nSec-Fetch-Site: cross-site", 403},
		{"Host: localhost:PORT\r\nSec-Fetch-Site: same-site", 403},
		{"Host: localhost:PORT\r\nOrigin: http://evil.example", 403},
		{"Host: localhost:PORT\r\nOrigin: null", 403},
		{"Host: localhost:PORT\r\nOrigin: http://localhost:1", 403},
	} {
		lines := strings.ReplaceAll(row.lines, "PORT", port)
		for _, path := range paths {
			want := row.want
			if path == "/nowhere" && want == 200 {
				want = 404
			}
			status, header, body := exchange(t, s.where.Admin, fmt.Sprintf("GET %s HTTP/1.1\r\n%s\r\nConnection: close\r\n\r\n", path, lines))
			if status != want || header.Get("X-Content-Type-Options") != "nosniff" || header.Get("Cross-Origin-Resource-Policy") != "same-origin" || header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("GET %s with %q: %d %v %.200s, want %d", path, lines, status, header, body, want)
			}
			if row.want != 200 && (strings.Contains(body, "daypass_") || strings.Contains(body, "profile")) {
				t.Errorf("GET %s with %q: %.200s", path, lines, body)
			}
		}
	}
	// A monitor that speaks HTTP/1.0 names no host.
	if status, _, _ := exchange(t, s.where.Admin, "GET /healthz HTTP/1.0\r\n\r\n"); status != 200 {
		t.Errorf("HTTP/1.0 without a host: %d", status)
	}
}

// TestAPIIsNotForWebPages: requests that a browser sends for a web page, including those that
// need no permission (a form, an image), do not reach the API's unsigned actions. Probes and
// a typed URL work.
func TestAPIIsNotForWebPages(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", "")
	s.start()
	address := strings.TrimPrefix(s.where.API, "http://")
	const assume = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn:aws:iam::123456789012:role/x&RoleSessionName=page&WebIdentityToken=e.e.e"
	post := func(lines string) string {
		return fmt.Sprintf("POST / HTTP/1.1\r\nHost: %s\r\n%sContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", address, lines, len(assume), assume)
	}
	for _, row := range []struct {
		request string
		refused bool
	}{
		{post(""), false},
		{post("Origin: http://evil.example\r\n"), true},
		{post("Origin: null\r\n"), true},
		{post("Origin: http://" + address + "\r\n"), true}, // even with our own address: we have no such pages
		{post("Sec-Fetch-Site: cross-site\r\n"), true},
		{post("Sec-Fetch-Site: same-origin\r\n"), true},
		{"GET /?" + assume + " HTTP/1.1\r\nHost: x\r\nSec-Fetch-Site: none\r\nConnection: close\r\n\r\n", false},
		{"GET /?" + assume + " HTTP/1.1\r\nHost: x\r\nSec-Fetch-Site: cross-site\r\nConnection: close\r\n\r\n", true},
		{"GET /?" + assume + " HTTP/1.1\r\nHost: x\r\nSec-Fetch-Site: same-site\r\nConnection: close\r\n\r\n", true},
		{"OPTIONS / HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n", true},
	} {
		status, header, body := exchange(t, address, row.request)
		refused := status == 403 && strings.Contains(body, "web page")
		if refused != row.refused || header.Get("Content-Type") != "text/xml" || header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s\n= %d %v %s", row.request, status, header, body)
		}
	}
	if status, _, body := exchange(t, address, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); status != 200 || body != "ok\n" {
		t.Errorf("a probe: %d %s", status, body)
	}
}

// TestSmuggledRequest: what follows a body in chunks on a connection is not answered. A proxy that
// went by the Content-Length would take the answer for that to another client's request.
func TestSmuggledRequest(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", "")
	s.start()
	const form = "Action=GetCallerIdentity&Version=2011-06-15"
	const smuggled = "GET /?Action=Smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	chunks := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(form), form)
	for name, row := range map[string]struct {
		head, body string
		answers    int
	}{
		"two requests":               {fmt.Sprintf("Content-Length: %d\r\n", len(form)), form, 2},
		"chunks":                     {"Transfer-Encoding: chunked\r\n", chunks, 1},
		"chunks and a length":        {fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n", len(chunks)), chunks, 1},
		"a short length, and chunks": {"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", chunks, 1},
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.where.API, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		last := smuggled
		if row.answers == 2 {
			last = strings.Replace(smuggled, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)
		}
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n%s\r\n%s%s", row.head, row.body, last)
		answer, _ := io.ReadAll(conn) // until the server closes; a reset ends the answer, too
		conn.Close()
		if got := strings.Count(string(answer), "HTTP/1.1 "); got != row.answers {
			t.Errorf("%s: %d answers, want %d\n%s", name, got, row.answers, answer)
		}
	}
}
