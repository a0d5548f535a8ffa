package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// testDriverExchanges replays the calls that Redshift's drivers make before they
// log on, from the gateway's testdata/drivers. If a call fails, a driver goes on to
// its next call, except that it first repeats a call that failed with a 5xx.
func (s *clientSite) testDriverExchanges(t *testing.T) {
	files, err := filepath.Glob("../../internal/gateway/testdata/drivers/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded drivers: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var driver struct {
			Driver    string
			Exchanges map[string][]struct {
				Form, Contains string
				Status         int
			}
		}
		if err := json.Unmarshal(text, &driver); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for name, calls := range driver.Exchanges {
			t.Run(driver.Driver+"/"+name, func(t *testing.T) {
				for _, call := range calls {
					form, contains := strings.ReplaceAll(call.Form, "HOST", s.host), strings.ReplaceAll(call.Contains, "HOST", s.host)
					status, body := s.post(t, form)
					if status != call.Status || !strings.Contains(body, contains) {
						t.Errorf("%s\ngot %d %s\nwant %d with %s", form, status, body, call.Status, contains)
					}
				}
			})
		}
	}
}

// post signs a form as ana and posts it.
func (s *clientSite) post(t *testing.T, form string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.api+"/", strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	hash := sha256.Sum256([]byte(form))
	keys := aws.Credentials{AccessKeyID: strings.TrimPrefix(keysOfAna[0], "AWS_ACCESS_KEY_ID="), SecretAccessKey: strings.TrimPrefix(keysOfAna[1], "AWS_SECRET_ACCESS_KEY=")}
	if err := v4.NewSigner().SignHTTP(t.Context(), keys, request, hex.EncodeToString(hash[:]), "redshift", "us-east-1", time.Now()); err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(bytes.TrimSpace(answer))
}
