package api_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/go-jose/go-jose/v4"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/directory"

	"github.com/daypass/daypass/test/pgtest"
)

// connectionServer is an HTTP server with bounded connections. The channel has the address
// of each client whose connection has become idle: a client has its answer before
// the server counts the connection as idle.
func connectionServer(t *testing.T, c *api.Connections) (address string, idle <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	became := make(chan string, 100)
	track := func(conn net.Conn, state http.ConnState) {
		c.Track(conn, state)
		if state == http.StateIdle {
			became <- conn.RemoteAddr().String()
		}
	}
	s := &http.Server{ConnState: track, ConnContext: c.Context, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("hello"))
	})}
	go s.Serve(c.Listener(l))
	t.Cleanup(func() { s.Close() })
	return l.Addr().String(), became
}

// alive reports whether a request on the connection is answered.
func alive(conn net.Conn) bool {
	conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		return false
	}
	answer := make([]byte, 4096)
	n, err := conn.Read(answer)
	return err == nil && n > 12 && string(answer[:12]) == "HTTP/1.1 200"
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestConnections: beyond a bound, in all or per address, a new connection takes the place of the
// one that has been idle longest.
func TestConnections(t *testing.T) {
	for name, c := range map[string]*api.Connections{
		"in all":      api.NewConnections(3, 100, nil),
		"per address": api.NewConnections(100, 3, nil),
	} {
		t.Run(name, func(t *testing.T) {
			address, became := connectionServer(t, c)
			// All connections have been served and are idle: the one that has been idle
			// longest makes room.
			var idle []net.Conn
			for range 3 {
				conn := dial(t, address)
				if !alive(conn) {
					t.Fatal("a connection within the bounds is not served")
				}
				if who := <-became; who != conn.LocalAddr().String() {
					t.Fatalf("%s became idle, want %s", who, conn.LocalAddr())
				}
				idle = append(idle, conn)
			}
			if !alive(dial(t, address)) {
				t.Error("idle connections keep a newcomer out")
			}
			if alive(idle[0]) {
				t.Error("the connection that was idle longest is still there")
			}
			if !alive(idle[2]) {
				t.Error("the wrong connection made room")
			}
			if n := c.Stats().Open; n != 3 {
				t.Errorf("%d connections are open, want 3", n)
			}
		})
	}
}

// crowded is the API behind a listener with few places.
func crowded(t *testing.T, limit, perAddress int, spec directory.Spec) (s *server, address string, c *api.Connections) {
	t.Helper()
	c = api.NewConnections(limit, perAddress, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = &server{t: t, keyring: newKeyring(), directory: build(t, spec), now: start, url: "http://" + l.Addr().String()}
	h := &http.Server{Handler: api.New(s.config()), ConnState: c.Track, ConnContext: c.Context}
	go h.Serve(c.Listener(l))
	t.Cleanup(func() { h.Close() })
	return s, l.Addr().String(), c
}

// from dials from an address of its own.
func from(t testing.TB, n int, address string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 3, byte(1+n))}}
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestStrangersTakeNotAllConnections: strangers hold all connections in every possible way,
// and reconnect when they are evicted. A known caller keeps its connection, and a new
// caller gets a connection and an answer.
func TestStrangersTakeNotAllConnections(t *testing.T) {
	const head = "POST / HTTP/1.1\r\nHost: x\r\n"
	for _, row := range []struct {
		name string
		say  string
		drip bool
	}{
		{"silent", "", false},
		{"half a header", head, false},
		{"half a body", head + "Content-Length: 1000\r\n\r\nAction=", false},
		{"half a chunked body", head + "Transfer-Encoding: chunked\r\n\r\n5\r\nActio", false},
		{"a body that drips", head + "Content-Length: 60000\r\n\r\nAction=", true},
		{"a header that drips", head + "X-", true},
		{"an answer, and half a second request", "GET / HTTP/1.1\r\nHost: x\r\n\r\n" + head, false},
		{"an answer, and a rest", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			const limit = 40
			s, address, c := crowded(t, limit, limit/4, example(t))
			var transport http.Transport
			defer transport.CloseIdleConnections()
			known := http.Client{Transport: &transport}
			call := func(client *http.Client) (reused bool, err error) {
				return askOnce(client, s.signed("root", "redshift", "POST", query("2012-12-01", "Action", "DescribeClusters")))
			}
			if _, err := call(&known); err != nil {
				t.Fatal(err)
			}
			stop := make(chan struct{})
			var strangers sync.WaitGroup
			defer strangers.Wait()
			defer close(stop)
			for i := range 4 { // addresses
				for range limit / 4 {
					strangers.Go(func() { beStranger(i, address, row.say, row.drip, stop) })
				}
			}
			pgtest.Eventually(t, "the listener fills", func() bool { return c.Stats().Open >= limit })
			for range 3 {
				began := time.Now()
				if _, err := call(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}); err != nil {
					t.Errorf("a newcomer: %v", err)
				}
				if took := time.Since(began); took > time.Minute {
					t.Errorf("a newcomer waited %v", took)
				}
			}
			if reused, err := call(&known); err != nil || !reused {
				t.Errorf("the known caller kept its connection: %t, %v", reused, err)
			}
			if n := c.Stats().Open; n > limit {
				t.Errorf("%d connections are open, want %d at most", n, limit)
			}
		})
	}
}

// beStranger holds a connection without completing a request, and reconnects if it is
// closed, until stop is closed.
func beStranger(n int, address, say string, drip bool, stop chan struct{}) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 3, byte(1+n))}}
	for {
		select {
		case <-stop:
			return
		default:
		}
		conn, err := dialer.Dial("tcp", address)
		if err != nil {
			continue
		}
		_, _ = io.WriteString(conn, say)
		over := make(chan struct{})
		go func() {
			defer close(over)
			_, _ = io.Copy(io.Discard, conn)
		}()
		ticker := time.NewTicker(100 * time.Millisecond)
	hold:
		for {
			select {
			case <-stop:
				break hold
			case <-over:
				break hold
			case <-ticker.C:
				if drip {
					_, _ = conn.Write([]byte("x"))
				}
			}
		}
		ticker.Stop()
		conn.Close()
		<-over
	}
}

// askOnce sends a request, and reports whether it used an existing connection.
func askOnce(client *http.Client, r *http.Request) (reused bool, err error) {
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), trace))
	response, err := client.Do(r)
	if err != nil {
		return reused, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != 200 {
		err = fmt.Errorf("%d %s", response.StatusCode, body)
	}
	return reused, err
}

// TestStrangersTakeNotAllLargePlaces: strangers hold all places for large bodies by sending
// slowly, from one address or from many. A caller with a large body still gets a place.
func TestStrangersTakeNotAllLargePlaces(t *testing.T) {
	for name, addresses := range map[string]int{"one address": 1, "many addresses": 40} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, address, _ := crowded(t, 1000, 1000, example(t))
			const strangers = 100
			for i := range strangers {
				conn := from(t, i%addresses, address)
				fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"+
					"Authorization: AWS4-HMAC-SHA256 Credential=%s/20260102/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=00\r\n"+
					"X-Amz-Date: 20260102T030405Z\r\n\r\n", keyOf("root"))
				fmt.Fprintf(conn, "%x\r\n%s\r\n", 12<<10, bytes.Repeat([]byte{'x'}, 12<<10))
			}
			large := query("2010-05-08", "Action", "SimulateCustomPolicy", "ActionNames.member.1", "redshift:GetClusterCredentials",
				"PolicyInputList.member.1", strings.Repeat(" ", 100<<10)+`{"Version":"2012-10-17","Statement":[]}`)
			pgtest.Eventually(t, "a place for a caller with a large body", func() bool { return s.do(s.signed("root", "iam", "POST", large)).status != 503 })
		})
	}
}

// TestSmallBodiesNeedNoLargePlace: a body of unknown length that turns out to be small
// is read without a place.
func TestSmallBodiesNeedNoLargePlace(t *testing.T) {
	p := newPressed(t)
	for range 40 {
		conn := from(t, 0, strings.TrimPrefix(p.url, "http://"))
		fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nActio")
	}
	body := query("2012-12-01", "Action", "DescribeClusters")
	r := p.request("POST", body)
	r.Body, r.ContentLength = io.NopCloser(struct{ io.Reader }{strings.NewReader(body)}), -1
	sum := sha256.Sum256([]byte(body))
	keys := aws.Credentials{AccessKeyID: keyOf("root"), SecretAccessKey: secret}
	if err := v4.NewSigner().SignHTTP(t.Context(), keys, r, hex.EncodeToString(sum[:]), "redshift", region, p.clock()); err != nil {
		t.Fatal(err)
	}
	if a := p.do(r); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if busy := p.handler.Pressure().Large.Busy; busy != 0 {
		t.Errorf("%d places for large bodies are taken, want 0", busy)
	}
}

// TestMediumBodiesNeedALargePlace: bodies of 12 KiB that strangers do not finish take memory on no more
// connections than there are places.
func TestMediumBodiesNeedALargePlace(t *testing.T) {
	p := newPressed(t)
	for i := range 40 {
		conn := from(t, i%2, strings.TrimPrefix(p.url, "http://"))
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", 13<<10, strings.Repeat("x", 12<<10))
	}
	pgtest.Eventually(t, "each address has its share of places", func() bool { return p.handler.Pressure().Large.Busy == 2*16 })
}

// TestHangingProvider: strangers send tokens of a provider that does not answer. Meanwhile
// tokens of other providers are accepted, and so are tokens of the same provider whose key is
// cached.
func TestHangingProvider(t *testing.T) {
	good := newIDP(t)
	var hang, hanging sync.WaitGroup
	hang.Add(1)
	bad := &idp{}
	bad.rotate("1")
	known, stuck := bad.key, false
	var mu sync.Mutex
	bad.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		wait := stuck
		mu.Unlock()
		if wait {
			hang.Wait()
		}
		if r.URL.Path == "/keys" {
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: known.Public(), KeyID: "1"}}})
			return
		}
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, bad.URL, bad.URL+"/keys")
	}))
	defer bad.Close()

	spec := withIDP(t, good)
	spec.Providers = []directory.Provider{{Issuer: good.URL, Audiences: []string{"daypass"}}, {Issuer: bad.URL, Audiences: []string{"daypass"}}}
	s, _, _ := crowded(t, 1000, 1000, spec)
	post := func(token string) answer { return s.do(s.request("POST", webForm("ci", token))) }
	code := func(a answer) string {
		var f fault
		_ = xml.Unmarshal([]byte(a.body), &f)
		return f.Code
	}
	ofKnownKey := bad.token(t, start, nil)
	if got := code(post(ofKnownKey)); got != "AccessDenied" {
		t.Fatalf("a token of the provider that will hang: %s, want AccessDenied", got)
	}
	mu.Lock()
	stuck = true
	mu.Unlock()
	bad.rotate("2")
	ofUnknownKey := bad.token(t, start, nil)
	results := make(chan string, 200)
	for range cap(results) {
		hanging.Go(func() { results <- code(post(ofUnknownKey)) })
	}
	// Most of them are told at once to try again.
	for range cap(results) - 100 {
		if got := <-results; got != "IDPCommunicationError" && got != "ServiceUnavailable" {
			t.Errorf("a token that would have to wait: %s", got)
		}
	}
	if a := post(good.token(t, start, nil)); a.status != 200 {
		t.Errorf("a token of another provider: %d %s", a.status, a.body)
	}
	if got := code(post(ofKnownKey)); got != "AccessDenied" {
		t.Errorf("a token of the hanging provider whose key is known: %s, want AccessDenied", got)
	}
	hang.Done()
	hanging.Wait()
}
