package sigv4_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/sigv4"
)

// vector is one case of the AWS signing test suite. testdata/vectors/README.md says
// where the cases come from and how they are packed into one file.
type vector struct {
	Name    string
	Context struct {
		Credentials struct {
			AccessKeyID     string `json:"access_key_id"`
			SecretAccessKey string `json:"secret_access_key"`
			Token           string
		}
		Region           string
		Service          string
		Timestamp        time.Time
		Normalize        bool
		OmitSessionToken bool `json:"omit_session_token"`
	}
	Header steps
	Query  steps
}

type steps struct{ request, canonical, toSign, signature string }

func readVectors(t *testing.T) []vector {
	t.Helper()
	data, err := os.ReadFile("testdata/vectors/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []json.RawMessage
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	vectors := make([]vector, len(cases))
	for i, raw := range cases {
		var files map[string]any
		if err := errors.Join(json.Unmarshal(raw, &vectors[i]), json.Unmarshal(raw, &files)); err != nil {
			t.Fatal(err)
		}
		get := func(kind string) steps {
			text := func(name string) string { s, _ := files[kind+"-"+name].(string); return s }
			return steps{text("signed-request"), text("canonical-request"), text("string-to-sign"), text("signature")}
		}
		vectors[i].Header, vectors[i].Query = get("header"), get("query")
	}
	if len(vectors) != 38 {
		t.Fatalf("testdata/vectors/vectors.json has %d cases, want 38", len(vectors))
	}
	return vectors
}

func (v *vector) verifier() *sigv4.Verifier {
	verifier := &sigv4.Verifier{
		Region:   v.Context.Region,
		Services: []string{v.Context.Service},
		Now:      func() time.Time { return v.Context.Timestamp },
	}
	if !v.Context.Normalize {
		verifier.KeepPath()
	}
	return verifier
}

func (v *vector) lookup(id, token string) (string, error) {
	if id != v.Context.Credentials.AccessKeyID || token != v.Context.Credentials.Token {
		return "", sigv4.ErrUnknownKey
	}
	return v.Context.Credentials.SecretAccessKey, nil
}

// TestVectors checks every step of every case in both forms.
func TestVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		for kind, want := range map[string]steps{"header": v.Header, "query": v.Query} {
			t.Run(v.Name+"/"+kind, func(t *testing.T) {
				verifier := v.verifier()
				r, body := parseRequest(t, want.request)
				canonical, toSign, signature, err := verifier.Steps(r, body,
					v.Context.Credentials.SecretAccessKey, !v.Context.OmitSessionToken)
				if err != nil {
					t.Fatalf("Steps: %v", err)
				}
				for _, step := range []struct{ name, got, want string }{
					{"canonical request", canonical, want.canonical},
					{"string to sign", toSign, want.toSign},
					{"signature", signature, want.signature},
				} {
					if step.got != step.want {
						t.Errorf("%s =\n%s\nwant\n%s", step.name, step.got, step.want)
					}
				}
				s, err := verifier.Verify(r, body, v.lookup)
				if err != nil {
					t.Fatalf("Verify = %v (%+v)", err, err)
				}
				if s.AccessKeyID != v.Context.Credentials.AccessKeyID || s.SessionToken != v.Context.Credentials.Token ||
					s.Region != v.Context.Region || s.Service != v.Context.Service ||
					!s.Date.Equal(v.Context.Timestamp) || s.Presigned != (kind == "query") {
					t.Errorf("Verify = %+v", s)
				}
			})
		}
	}
}

// TestVectorsThroughServer sends the cases to net/http's server, byte for byte. A handler sees
// folded and repeated headers as they were signed. Targets that are not valid HTTP never reach a
// handler.
func TestVectorsThroughServer(t *testing.T) {
	vectors := readVectors(t)
	byName := map[string]*vector{}
	for i := range vectors {
		byName[vectors[i].Name] = &vectors[i]
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, _ := strings.Cut(r.Header.Get("Case"), "/")
		body, err := io.ReadAll(r.Body)
		if err == nil {
			_, err = byName[name].verifier().Verify(r, body, byName[name].lookup)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
		}
	}))
	defer server.Close()
	for _, v := range vectors {
		for kind, request := range map[string]string{"header": v.Header.request, "query": v.Query.request} {
			status, answer := roundTrip(t, server.Listener.Addr().String(),
				strings.Replace(request, "\n", "\nCase: "+v.Name+"/"+kind+"\n", 1))
			line, _, _ := strings.Cut(request, "\n")
			valid := len(strings.Fields(line)) == 3
			switch {
			case valid && status != http.StatusOK:
				t.Errorf("%s/%s: %d %s", v.Name, kind, status, answer)
			case !valid && status != http.StatusBadRequest:
				t.Errorf("%s/%s: %d, want 400", v.Name, kind, status)
			}
		}
	}
}

func roundTrip(t *testing.T, address, request string) (int, string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	head, body, _ := strings.Cut(request, "\n\n")
	if _, err := fmt.Fprintf(conn, "%s\r\n\r\n%s", strings.ReplaceAll(strings.TrimRight(head, "\n"), "\n", "\r\n"), body); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

// TestClients verifies recorded requests of real clients. They are unchanged, except that
// User-Agent was removed.
func TestClients(t *testing.T) {
	data, err := os.ReadFile("testdata/clients.json")
	if err != nil {
		t.Fatal(err)
	}
	var clients []struct{ Name, Request string }
	if err := json.Unmarshal(data, &clients); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		t.Run(c.Name, func(t *testing.T) {
			r, body := parseRequest(t, c.Request)
			stamp := r.Header.Get("X-Amz-Date") + r.URL.Query().Get("X-Amz-Date")
			now, err := time.Parse("20060102T150405Z", stamp)
			if err != nil {
				t.Fatal(err)
			}
			v := &sigv4.Verifier{Region: "us-east-1", Services: []string{"redshift"}, Now: func() time.Time { return now }}
			wantToken := ""
			if strings.Contains(c.Name, "token") || strings.Contains(c.Name, "JavaScript") {
				wantToken = token
			}
			s, err := v.Verify(r, body, func(id, got string) (string, error) {
				if id != keyID || got != wantToken {
					return "", sigv4.ErrUnknownKey
				}
				return secret, nil
			})
			if err != nil {
				t.Fatalf("Verify = %v", err)
			}
			if s.Service != "redshift" {
				t.Errorf("Service = %q", s.Service)
			}
			if claim, err := sigv4.Peek(r); err != nil || claim.Bare() != (sigv4.Claim{AccessKeyID: keyID, Region: "us-east-1", Service: "redshift", Presigned: s.Presigned}) {
				t.Errorf("Peek = %+v, %v", claim, err)
			}
			// The same request for another user is not the same request.
			if len(body) > 0 {
				if _, err := v.Verify(r, append(body, '1'), anyToken); err == nil {
					t.Error("Verify of another body succeeded")
				}
			} else {
				r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "DbUser=", "DbUser=x", 1)
				if _, err := v.Verify(r, body, anyToken); !errors.Is(err, sigv4.ErrSignature) {
					t.Errorf("Verify of another query = %v, want %v", err, sigv4.ErrSignature)
				}
			}
		})
	}
}
