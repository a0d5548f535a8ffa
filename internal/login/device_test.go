package login

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// script is a server that gives the answers of a table, one after the other.
type script struct {
	answers []string // status, a space, and the body; empty: the connection fails
	asked   []string // grant types
	start   string
}

func (s *script) Do(r *http.Request) (*http.Response, error) {
	var body map[string]string
	if data, err := io.ReadAll(r.Body); err != nil || json.Unmarshal(data, &body) != nil {
		return nil, errors.New("no JSON")
	}
	answer := s.start
	if r.URL.Path == "/v1/token" {
		if body["deviceCode"] != "the device code" || body["clientId"] != crossDevice || r.Header.Get("DPoP") == "" {
			return nil, errors.New("not the request of a device")
		}
		s.asked = append(s.asked, body["grantType"])
		answer, s.answers = s.answers[0], s.answers[1:]
	}
	if answer == "" {
		return nil, errors.New("connection refused")
	}
	status := map[string]int{"200": 200, "400": 400, "404": 404, "503": 503}[answer[:3]]
	return &http.Response{StatusCode: status, Status: answer[:3], Body: io.NopCloser(strings.NewReader(answer[4:]))}, nil
}

const (
	begun   = `200 {"deviceCode":"the device code","userCode":"BCDF-GHJK","verificationUri":"https://d.example.com/device","expiresIn":600,"interval":3}`
	pending = `400 {"error":"authorization_pending","message":"No one yet."}`
	slower  = `400 {"error":"slow_down","message":"Slower."}`
	// {"sub":"arn:aws:sts::123456789012:assumed-role/r/s"}
	keys = `200 {"accessToken":{"accessKeyId":"ASIA","secretAccessKey":"s","sessionToken":"t"},"expiresIn":900,"refreshToken":"r",
		"idToken":"e30.eyJzdWIiOiJhcm46YXdzOnN0czo6MTIzNDU2Nzg5MDEyOmFzc3VtZWQtcm9sZS9yL3MifQ."}`
)

// TestDevicePolls: RFC 8628, section 3.5: the device waits for the interval, longer after slow_down
// and after a failure, and ends when it is told to or when the code has expired.
func TestDevicePolls(t *testing.T) {
	for name, row := range map[string]struct {
		start   string
		answers []string
		waits   []int // seconds
		err     string
	}{
		"allowed":             {begun, []string{pending, pending, keys}, []int{3, 3, 3}, ""},
		"no interval":         {strings.Replace(begun, `,"interval":3`, "", 1), []string{pending, keys}, []int{5, 5}, ""},
		"a long interval":     {strings.Replace(begun, `"interval":3`, `"interval":3000`, 1), []string{keys}, []int{60}, ""},
		"slow down":           {begun, []string{slower, pending, slower, keys}, []int{3, 8, 8, 13}, ""},
		"an outage":           {begun, []string{"", `503 {"error":"server_error","message":"Later."}`, pending, keys}, []int{3, 6, 12, 12}, ""},
		"denied":              {begun, []string{pending, `400 {"error":"access_denied","message":"x"}`}, []int{3, 3}, ErrDenied.Error()},
		"expired":             {begun, []string{`400 {"error":"expired_token","message":"x"}`}, []int{3}, ErrExpired.Error()},
		"expired by the time": {strings.Replace(begun, "600", "10", 1), []string{pending, pending, pending}, []int{3, 3, 3, 3}, ErrExpired.Error()},
		"not reached again":   {strings.Replace(begun, "600", "10", 1), []string{pending, ""}, []int{3, 3, 6}, "connection refused"},
		"refused":             {begun, []string{`400 {"error":"INVALID_REQUEST","message":"no \u001b[2J"}`}, []int{3}, "signing in: no"},
		"no server of ours":   {"400 <html>", nil, nil, "did not come from a Daypass server"},
		"no sign-in":          {"404 <ErrorResponse>", nil, nil, "https://d.example.com: people cannot sign in at this server"},
		"an older server":     {"200 {}", nil, nil, "use --remote"},
		"another page":        {strings.Replace(begun, "//d.example.com", "//d.example.com.evil.example", 1), nil, nil, "on another server"},
		"a page as a user":    {strings.Replace(begun, "//d.example.com", "//d.example.com@evil.example", 1), nil, nil, "on another server"},
		"a page without TLS":  {strings.Replace(begun, "https://d", "http://d", 1), nil, nil, "on another server"},
		"text as a code":      {strings.Replace(begun, "BCDF-GHJK", "call 555-0100", 1), nil, nil, "no one can type"},
		"a code for ever":     {strings.Replace(begun, "600", "6000000", 1), nil, nil, "no device code"},
	} {
		server := &script{start: row.start, answers: row.answers}
		now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		var waits []int
		shown := ""
		session, err := SignInDevice(t.Context(), Device{
			Config: Config{Endpoint: "https://d.example.com/", HTTP: server, Now: func() time.Time { return now }}, Name: "daypass-here",
			ShowCode: func(page, code string, _ time.Time) { shown = page + " " + code },
			Wait: func(_ context.Context, d time.Duration) error {
				now = now.Add(d)
				waits = append(waits, int(d/time.Second))
				return nil
			},
		})
		if row.err == "" && (err != nil || session.ARN != "arn:aws:sts::123456789012:assumed-role/r/s") || row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err)) {
			t.Errorf("%s: %+v, %v, want %q", name, session, err, row.err)
		}
		if !slices.Equal(waits, row.waits) {
			t.Errorf("%s: waits of %v seconds, want %v", name, waits, row.waits)
		}
		if len(row.waits) > 0 != (shown == "https://d.example.com/device BCDF-GHJK") {
			t.Errorf("%s: the person sees %q", name, shown)
		}
		for _, grant := range server.asked {
			if grant != "urn:ietf:params:oauth:grant-type:device_code" {
				t.Errorf("%s: grant type %s", name, grant)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := SignInDevice(ctx, Device{Config: Config{Endpoint: "https://d.example.com", HTTP: &script{start: begun}, Now: time.Now}, Name: "x",
		ShowCode: func(string, string, time.Time) { cancel() }, Wait: Wait})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
