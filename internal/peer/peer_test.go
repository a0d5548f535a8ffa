package peer_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/peer"
)

// server answers peers on loopback.
type server struct {
	peer.Peer
	killed, cancelled atomic.Pointer[string]
}

func serve(t *testing.T, roots *keyring.Roots, name string, now func() time.Time) *server {
	t.Helper()
	identity, err := peer.NewIdentity(roots, name, now)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &server{Peer: peer.Peer{ID: name, Address: l.Addr().String()}}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- peer.Serve(ctx, l, identity, peer.Service{
			Sessions: func(id string) any { return []string{name, id} },
			Kill:     func(id string) bool { s.killed.Store(&id); return id == "of "+name },
			Cancel: func(request []byte) bool {
				text := string(request)
				s.cancelled.Store(&text)
				return text == "of "+name
			},
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// patience is how long peers may take to answer: more than in production, on a busy machine.
const patience = 6 * time.Second

func client(t *testing.T, roots *keyring.Roots, name string, now func() time.Time, peers ...peer.Peer) *peer.Client {
	t.Helper()
	identity, err := peer.NewIdentity(roots, name, now)
	if err != nil {
		t.Fatal(err)
	}
	c := peer.PatientClientForTest(identity, func() []peer.Peer { return peers }, patience)
	t.Cleanup(c.Close)
	return c
}

// lines counts log lines.
type lines struct{ atomic.Int64 }

func (l *lines) Write(p []byte) (int, error) {
	l.Add(1)
	return len(p), nil
}

func all(peer.Peer) bool { return true }

// TestPeers: requests reach the server that has the session, and servers that do not answer are
// named.
func TestPeers(t *testing.T) {
	roots := keyring.NewRoots()
	minutesAhead := func() time.Time { return time.Now().Add(10 * time.Minute) }
	a, b := serve(t, roots, "a", time.Now), serve(t, roots, "b", minutesAhead)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c := client(t, roots, "c", time.Now, a.Peer, b.Peer)
	for _, name := range []string{"a", "b"} {
		if !c.Kill(t.Context(), "of "+name) || !c.Cancel(t.Context(), []byte("of "+name), all) {
			t.Errorf("what %s has is not found", name)
		}
	}
	if c.Kill(t.Context(), "of c") || c.Cancel(t.Context(), []byte("of c"), all) {
		t.Error("what no one has is found")
	}
	a.cancelled.Store(nil)
	if !c.Cancel(t.Context(), []byte("of b"), func(p peer.Peer) bool { return p.ID == "b" }) || a.cancelled.Load() != nil {
		t.Error("a cancel request went to a server that it was not for")
	}
	if c.Cancel(t.Context(), bytes.Repeat([]byte("x"), 4+257), all) || c.Kill(t.Context(), strings.Repeat("x", 129)) || c.Kill(t.Context(), "") {
		t.Error("a request that is too long, or empty, is taken")
	}

	gone := peer.Peer{ID: "gone", Address: "127.0.0.1:1"}
	c = client(t, roots, "c", time.Now, gone, a.Peer, peer.Peer{ID: "silent", Address: silent.Addr().String()})
	var answers []string
	began := time.Now()
	failed := c.Sessions(t.Context(), "x", func(server string, answer []byte) error {
		answers = append(answers, server+" "+strings.TrimSpace(string(answer)))
		return nil
	})
	if !errors.Is(failed["gone"], syscall.ECONNREFUSED) {
		t.Errorf("where nothing listens: %v", failed["gone"])
	}
	if got := fmt.Sprint(answers, slices.Sorted(maps.Keys(failed))); got != `[a ["a","x"]] [gone silent]` {
		t.Errorf("Sessions() = %s", got)
	}
	if took := time.Since(began); took > 5*patience {
		t.Errorf("it took %v", took)
	}
}

// TestStrangers: a client without a certificate under the root key fails in the handshake, and a
// server that shows another server's certificate is not trusted.
func TestStrangers(t *testing.T) {
	var logged lines
	log.SetOutput(&logged)
	defer log.SetOutput(os.Stderr)
	roots, others := keyring.NewRoots(), keyring.NewRoots()
	a := serve(t, roots, "a", time.Now)
	for name, c := range map[string]*peer.Client{
		"another root key":        client(t, others, "c", time.Now, a.Peer),
		"the address of another":  client(t, roots, "c", time.Now, peer.Peer{ID: "b", Address: a.Address}),
		"a certificate of before": client(t, roots, "c", func() time.Time { return time.Now().Add(-48 * time.Hour) }, a.Peer),
	} {
		if c.Kill(t.Context(), "of a") || a.killed.Load() != nil {
			t.Errorf("%s: a session is ended", name)
		}
		if un := c.Sessions(t.Context(), "", func(string, []byte) error { return nil }); len(un) != 1 {
			t.Errorf("%s: sessions are listed", name)
		}
	}
	plain := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // the server has to refuse it
	if response, err := plain.Post("https://"+a.Address+"/v1/kill", "application/json", strings.NewReader(`{"id":"of a"}`)); err == nil {
		response.Body.Close()
		t.Errorf("without a certificate: %s", response.Status)
	}
	if response, err := http.Post("http://"+a.Address+"/v1/kill", "application/json", strings.NewReader(`{"id":"of a"}`)); err == nil {
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			t.Errorf("without TLS: %s", response.Status)
		}
	}
	if a.killed.Load() != nil {
		t.Error("a stranger has ended a session")
	}
	if n := logged.Load(); n > 0 {
		t.Errorf("strangers have the server log %d lines", n)
	}
}

// TestStrangersKeepNoPeerOut: peers can still connect while strangers open connections and say
// nothing, or start handshakes again and again, from one address or from many.
func TestStrangersKeepNoPeerOut(t *testing.T) {
	roots := keyring.NewRoots()
	a := serve(t, roots, "a", time.Now)
	c := client(t, roots, "c", time.Now, a.Peer)
	ctx, stop := context.WithCancel(t.Context())
	var strangers sync.WaitGroup
	defer strangers.Wait()
	defer stop()
	var opened atomic.Int64
	for i := range 600 {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(i%20), 1)}}
		strangers.Go(func() {
			for ctx.Err() == nil {
				conn, err := dialer.DialContext(ctx, "tcp", a.Address)
				if err != nil {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				opened.Add(1)
				end := context.AfterFunc(ctx, func() { conn.Close() })
				if i%2 == 0 {
					_, _ = conn.Write([]byte{22, 3, 1})
				}
				_, _ = io.Copy(io.Discard, conn)
				end()
				conn.Close()
			}
		})
	}
	for opened.Load() < 1000 { // many more than there are places
		time.Sleep(10 * time.Millisecond)
	}
	for range 3 {
		if unanswered := c.Sessions(t.Context(), "", func(string, []byte) error { return nil }); len(unanswered) > 0 {
			t.Error("strangers keep a peer out")
		}
		c.Close() // the next request needs a connection of its own
	}
}

// TestRootsOfPeers: servers whose first root key is the new one and servers whose first is the
// old one can talk to each other.
func TestRootsOfPeers(t *testing.T) {
	parse := func(lines string) *keyring.Roots {
		roots, err := keyring.ParseRoots([]byte(lines))
		if err != nil {
			t.Fatal(err)
		}
		return roots
	}
	const first, second = "5mrUHyeJx4KGsXXGbqZqCLpEVkGePlmkkkIAXfHlYmQ=", "q4d61qyQyxyvhhAIz9wUURnLlaVnVRcGgCYHxnIfm0o="
	a := serve(t, parse(first+"\n"+second), "a", time.Now)
	b := serve(t, parse(second+"\n"+first), "b", time.Now)
	if !client(t, parse(second+"\n"+first), "b", time.Now, a.Peer).Kill(t.Context(), "of a") ||
		!client(t, parse(first+"\n"+second), "a", time.Now, b.Peer).Kill(t.Context(), "of b") {
		t.Error("servers with both root keys do not reach one another")
	}
}

// FuzzRequests: any request of a peer is answered or refused, and only a well-formed request of
// bounded size has an effect.
func FuzzRequests(f *testing.F) {
	for _, body := range []string{`{}`, `{"id":"x"}`, `{"id":"x","later":[1]}`, `{"request":"AAAAAQIDBAU="}`, `{"request":1}`, `[`, ``} {
		f.Add("kill", []byte(body))
		f.Add("cancel", []byte(body))
		f.Add("sessions", []byte(body))
	}
	f.Fuzz(func(t *testing.T, what string, body []byte) {
		var killed, cancelled []string
		handler := peer.HandlerForTest(peer.Service{
			Sessions: func(id string) any { return []string{id} },
			Kill:     func(id string) bool { killed = append(killed, id); return true },
			Cancel:   func(request []byte) bool { cancelled = append(cancelled, string(request)); return true },
		})
		r, err := http.NewRequest("POST", "/v1/x", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Path = "/v1/" + what
		w := &recorder{header: http.Header{}}
		handler.ServeHTTP(w, r)
		if len(killed)+len(cancelled) > 1 || len(killed) > 0 && what != "kill" || len(cancelled) > 0 && what != "cancel" {
			t.Errorf("%s has killed %q and cancelled %q", what, killed, cancelled)
		}
		for _, id := range killed {
			if id == "" || len(id) > 128 {
				t.Errorf("an identifier of %d bytes is taken", len(id))
			}
		}
		for _, request := range cancelled {
			if len(request) > 260 {
				t.Errorf("a request of %d bytes is taken", len(request))
			}
		}
		if w.status != 0 && w.status != http.StatusOK && len(killed)+len(cancelled) > 0 {
			t.Errorf("a request that is refused with %d was carried out", w.status)
		}
	})
}

type recorder struct {
	header http.Header
	status int
	bytes.Buffer
}

func (r *recorder) Header() http.Header    { return r.header }
func (r *recorder) WriteHeader(status int) { r.status = status }

var _ io.Writer = (*recorder)(nil)
