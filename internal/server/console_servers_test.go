package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/daypass/daypass/test/etcdtest"
	"github.com/daypass/daypass/test/pgtest"
)

// wire forwards connections to a server, until it is cut: then it accepts them, and nothing
// answers, as with a machine that hangs.
type wire struct {
	net.Listener
	to string

	mu    sync.Mutex
	isCut bool       // guarded by mu
	open  []net.Conn // guarded by mu
}

func newWire(t *testing.T, to string) *wire {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l, to: to}
	t.Cleanup(func() { l.Close(); w.cut() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			w.forward(conn)
		}
	}()
	return w
}

func (w *wire) forward(conn net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = append(w.open, conn)
	if w.isCut {
		return
	}
	other, err := net.Dial("tcp", w.to)
	if err != nil {
		conn.Close()
		return
	}
	w.open = append(w.open, other)
	go func() { _, _ = io.Copy(other, conn); other.Close() }()
	go func() { _, _ = io.Copy(conn, other); conn.Close() }()
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isCut = true
	for _, conn := range w.open {
		conn.Close()
	}
	w.open = nil
}

// TestConsoleOverServers: a browser whose cookie takes several parts signs in at one server and
// uses another, as behind a balancer. Sessions at both are listed; a server that does not answer is
// named. The sign-out at one ends the session at the other, also for a copy of the cookie.
func TestConsoleOverServers(t *testing.T) {
	t.Parallel() // the test mostly waits
	etcd, database := etcdtest.Start(t), startDatabase(t)
	key := filepath.Join(t.TempDir(), "root.key")
	if err := os.WriteFile(key, []byte(testRootKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	peerHere, peerThere := freeAddress(t), freeAddress(t)
	between := newWire(t, peerThere)
	top := fmt.Sprintf("registry: {etcd: {endpoints: [%q]}}\nroot_key: {file: %q}\n", etcd.URL, key)
	peers := fmt.Sprintf("peers: {listen: %q}\n", peerHere)
	s := newSignInSiteWith(t, top+peers)
	s.configureConsole("console: true\n"+top+peers, database)
	s.reload()
	there := newServed(t, database, "")
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	listen := strings.TrimPrefix(s.api, "http://")
	if err := os.WriteFile(there.config, []byte(strings.NewReplacer(`listen: "`+listen, `listen: "127.0.0.1:0`,
		peers, fmt.Sprintf("peers: {listen: %q, advertise: %q}\n", peerThere, between.Addr())).Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	there.start()

	s.mu.Lock()
	for i := range 250 { // as a provider sends groups by their ids
		s.people[0].Groups = append(s.people[0].Groups, fmt.Sprintf("%08x-58cc-4372-a567-%012x", uint32(i)*2654435761, uint64(i)*0x9e3779b97f4a7c15>>16))
	}
	s.mu.Unlock()
	ana := s.enter("1", "engineer")
	api, _ := http.NewRequest("GET", s.api, nil)
	parts := 0
	var cookies []*http.Cookie
	for _, c := range ana.http.Jar.Cookies(api.URL) {
		if strings.HasPrefix(c.Name, "daypass-console") {
			parts++
			cookies = append(cookies, c)
			if len(c.Name)+len(c.Value) > 4000 {
				t.Errorf("the cookie %s has %d characters", c.Name, len(c.Value))
			}
		}
	}
	if parts < 2 {
		t.Fatalf("the cookie has %d part, which shows nothing", parts)
	}

	// The other server, at the same address: the balancer has chosen it.
	balanced := func(b *browser, to *served) *browser {
		other := *b
		client := *b.http
		client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == listen {
				address = strings.TrimPrefix(to.where.API, "http://")
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}}
		other.http = &client
		return &other
	}
	elsewhere := balanced(ana, there)
	s.goTo(elsewhere, "/console/", 200)
	hasAll(t, "the other server", elsewhere.page, "ana@example.com")

	credential := s.consoleCredential(ana)
	s.logonAs(credential, "here")
	conn, err := there.logon(credential)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	serverOf := regexp.MustCompile(`server ([^<]+)</small>`)
	pgtest.Eventually(t, "both servers to list both sessions", func() bool {
		for _, b := range []*browser{ana, elsewhere} {
			s.goTo(b, "/console/sessions", 200)
			if len(serverOf.FindAllString(b.page, -1)) != 2 || strings.Contains(b.page, "did not answer") {
				return false
			}
		}
		return true
	})
	names := serverOf.FindAllStringSubmatch(ana.page, -1)
	between.cut()
	s.goTo(ana, "/console/sessions", 200)
	if left := serverOf.FindAllStringSubmatch(ana.page, -1); len(left) != 1 {
		t.Fatalf("with one server cut off: %s", ana.page)
	}
	missing := names[0][1]
	if serverOf.FindStringSubmatch(ana.page)[1] == missing {
		missing = names[1][1]
	}
	hasAll(t, "with one server cut off", words(ana.page), "These servers did not answer, so their sessions are missing here: "+missing+".")

	less := s.with(cookies[:len(cookies)-1]...)
	if less.open(s.api + "/console/"); !isSignedOut(less) {
		t.Errorf("a cookie without its last part: %s", less.page)
	}
	elsewhere.form(s.api+"/console/sign-out", map[string][]string{})
	hasAll(t, "the sign-out", elsewhere.page, "You are signed out, in this browser and on all servers.")
	for _, c := range ana.http.Jar.Cookies(api.URL) {
		if strings.HasPrefix(c.Name, "daypass-console") {
			t.Errorf("the browser still has the cookie %s", c.Name)
		}
	}
	thief := s.with(cookies...)
	pgtest.Eventually(t, "a copy of the cookie to be refused at the first server", func() bool {
		thief.open(s.api + "/console/")
		return isSignedOut(thief)
	})
	again := balanced(s.with(cookies...), there)
	if again.open(s.api + "/console/"); !isSignedOut(again) {
		t.Errorf("a copy of the cookie at the server of the sign-out: %s", again.page)
	}
}
