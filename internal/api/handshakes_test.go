package api_test

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/api"
)

// TestHandshakesAreBounded: a client sends no more than 16 KiB in its TLS handshake. Those that say
// nothing keep no other waiting, and one that speaks HTTP without TLS is told so.
func TestHandshakesAreBounded(t *testing.T) {
	example := httptest.NewTLSServer(nil)
	t.Cleanup(example.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := api.NewConnections(100, 100, nil)
	secure := c.SecureListener(l, &tls.Config{Certificates: example.TLS.Certificates, NextProtos: []string{"http/1.1"}})
	s := &http.Server{ConnState: c.Track, ConnContext: c.Context, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			t.Error("a request without TLS")
		}
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	}), ErrorLog: log.New(io.Discard, "", 0)}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(secure) }()
	t.Cleanup(func() { s.Close() })
	address := l.Addr().String()
	silent := from(t, 0, address)

	shake := func(size int) (*tls.Conn, error) {
		protocols := []string{"http/1.1"}
		for range size / 256 {
			protocols = append(protocols, strings.Repeat("x", 255))
		}
		conn := tls.Client(from(t, 0, address), &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
		return conn, conn.HandshakeContext(t.Context())
	}
	if _, err := shake(17 << 10); err == nil {
		t.Error("17 KiB: the handshake succeeded")
	}
	conn, err := shake(12 << 10)
	if err != nil {
		t.Fatalf("12 KiB: %v", err)
	}
	// The bound is for the handshake alone.
	body := strings.Repeat("y", 100<<10)
	client := http.Client{Transport: &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
	response, err := client.Post("https://"+address, "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || string(got) != body {
		t.Errorf("%d bytes came back, %v, want %d", len(got), err, len(body))
	}

	plain := from(t, 0, address)
	_, _ = io.WriteString(plain, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	_ = plain.SetReadDeadline(time.Now().Add(time.Minute))
	if answer, _ := io.ReadAll(plain); !strings.Contains(string(answer), "Client sent an HTTP request to an HTTPS server") {
		t.Errorf("answer to HTTP without TLS: %q", answer)
	}

	s.Close()
	if err := <-ended; err != http.ErrServerClosed {
		t.Errorf("Serve() = %v", err)
	}
	_ = silent.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := silent.Read(make([]byte, 1)); err == nil || n > 0 || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the connection in the handshake is open after the end: %v", err)
	}
}
