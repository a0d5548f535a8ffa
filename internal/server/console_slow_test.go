package server

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// heldBack is a body before whose first byte something happens.
type heldBack struct {
	io.Reader
	meanwhile func()
}

func (b *heldBack) Read(p []byte) (int, error) {
	if b.meanwhile != nil {
		b.meanwhile()
		b.meanwhile = nil
	}
	return b.Reader.Read(p)
}

// TestConsoleSlowForm: a session that ends while a form arrives, because the configuration has been
// reloaded, gets nothing. The server asks for the body (100 Continue) after it has looked at the
// session for the first time.
func TestConsoleSlowForm(t *testing.T) {
	s := newConsoleSite(t)
	b := s.enter("1", "analyst")
	_, token, _ := strings.Cut(b.page, `name="token" value="`)
	token, _, _ = strings.Cut(token, `"`)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ExpectContinueTimeout = time.Minute
	t.Cleanup(transport.CloseIdleConnections)
	b.http.Transport = transport
	post := func(meanwhile func()) {
		form := url.Values{"token": {token}, "cluster": {"examplecluster"}, "user": {"alice"}, "database": {"dev"}, "minutes": {"15"}}.Encode()
		r, err := http.NewRequest("POST", s.api+"/console/credential", &heldBack{strings.NewReader(form), meanwhile})
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Expect", "100-continue")
		b.do(r)
	}
	post(func() {})
	if b.status != 200 || !strings.Contains(b.page, "jdbc:") {
		t.Fatalf("nothing happens: %d\n%s", b.status, b.page)
	}
	post(func() {
		s.rewrite("client_id: daypass", "client_id: other", "audiences: [daypass]", "audiences: [daypass, other]")
	})
	if b.status != 403 || !isSignedOut(b) || strings.Contains(b.page, "jdbc:") {
		t.Errorf("the client of sign-ins has changed: %d, want 403\n%s", b.status, b.page)
	}
	if got := s.records("GetClusterCredentials"); len(got) != 1 {
		t.Errorf("%d credentials were issued, want 1", len(got))
	}
}
