package login

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// tokenEndpoint records the code that it is sent, and answers with an error.
type tokenEndpoint struct{ code string }

func (e *tokenEndpoint) Do(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet { // whether the server is there
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
	}
	var body struct {
		Code string `json:"code"`
	}
	data, err := io.ReadAll(r.Body)
	if err := errors.Join(err, json.Unmarshal(data, &body)); err != nil {
		return nil, err
	}
	e.code = body.Code
	return nil, errors.New("nothing here")
}

// TestClockThatIsOff: the server would refuse the sign-in, so the browser does not open.
func TestClockThatIsOff(t *testing.T) {
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	server := answers(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Date": {at.Format(http.TimeFormat)}}, Body: http.NoBody}, nil
	})
	for off, want := range map[time.Duration]string{
		6 * time.Minute:  "the clock of this machine is 6m0s ahead of that of https://d.example.com",
		-2 * time.Hour:   "the clock of this machine is 2h0m0s behind that of",
		-4 * time.Minute: "no one came",
	} {
		opened := false
		_, err := SignIn(t.Context(), Config{Endpoint: "https://d.example.com/", HTTP: server, Now: func() time.Time { return at.Add(off) },
			Show: func(string) { opened = true }, Paste: func(context.Context) (string, error) { return "", errors.New("no one came") }})
		if err == nil || !strings.Contains(err.Error(), want) || opened != (want == "no one came") {
			t.Errorf("%v: %v, shown %t, want %q", off, err, opened, want)
		}
	}
}

type answers func(*http.Request) (*http.Response, error)

func (f answers) Do(r *http.Request) (*http.Response, error) { return f(r) }

// TestAnswersOfOthersEndNothing: any page that the person has open can send requests to ports of
// this machine. No such request ends the waiting sign-in or gives it a code.
func TestAnswersOfOthersEndNothing(t *testing.T) {
	endpoint := &tokenEndpoint{}
	open := func(address string) {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		redirect, state := u.Query().Get("redirect_uri"), u.Query().Get("state")
		get := func(host string, query url.Values) int {
			r, err := http.NewRequest("GET", redirect+"?"+query.Encode(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if host != "" {
				r.Host = host
			}
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			return response.StatusCode
		}
		for name, row := range map[string]struct {
			host  string
			query url.Values
		}{
			"no code":                {"", url.Values{"state": {state}}},
			"no state":               {"", url.Values{"code": {"evil"}}},
			"another state":          {"", url.Values{"code": {"evil"}, "state": {"other"}}},
			"another state in front": {"", url.Values{"code": {"evil"}, "state": {"other", state}}},
			"a name of this machine": {"evil.example", url.Values{"code": {"evil"}, "state": {state}}},
		} {
			if got := get(row.host, row.query); got < 400 {
				t.Errorf("%s: %d, want a refusal", name, got)
			}
		}
		if got := get("", url.Values{"code": {"mine"}, "state": {state}}); got != http.StatusOK {
			t.Errorf("the right answer: %d", got)
		}
	}
	_, err := SignIn(t.Context(), Config{Endpoint: "http://127.0.0.1:1", HTTP: endpoint, Now: time.Now, Show: func(string) {}, Open: open})
	if endpoint.code != "mine" {
		t.Errorf("the code %q was exchanged (%v), want the one with the state of this sign-in", endpoint.code, err)
	}
}
