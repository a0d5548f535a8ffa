package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/api"
)

// TestSignedForAnother: a request that is signed for another service or region gets an
// error that says so, in the answer and in the record, not the error for a bad signature.
func TestSignedForAnother(t *testing.T) {
	s := newServer(t, example(t))
	for _, row := range []struct {
		service, region string
		says            string
		source          string // of the record
	}{
		{"s3", region, "signed for 's3', which is not a service of this endpoint", "s3.amazonaws.com"},
		{"redshift-serverless", region, "signed for 'redshift-serverless', which is not a service of this endpoint", "redshift-serverless.amazonaws.com"},
		{"redshift", "eu-west-1", "signed for 'eu-west-1', which is not the region of this endpoint", "redshift.amazonaws.com"},
		{"sts", "eu-west-1", "signed for 'eu-west-1', which is not the region of this endpoint", "sts.amazonaws.com"},
		{"\x01<b>", region, "correct service", "redshift.amazonaws.com"}, // not a valid name, so it is not repeated
		{strings.Repeat("s", 64), region, "correct service", "redshift.amazonaws.com"},
	} {
		r := s.signed("root", "redshift", "POST", query("2012-12-01", "Action", "DescribeClusters"))
		header := r.Header.Get("Authorization")
		r.Header.Set("Authorization", strings.Replace(header, "/"+region+"/redshift/", "/"+row.region+"/"+row.service+"/", 1))
		if row.service[0] < ' ' {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "\x01", "\u009b", 1))
		}
		a := s.do(r)
		f := a.fault(t)
		if a.status != 403 || f.Code != "SignatureDoesNotMatch" || !strings.Contains(f.Message, row.says) {
			t.Errorf("%q in %s: %d %s", row.service, row.region, a.status, a.body)
		}
		line := s.lastLine()
		if line.EventSource != row.source || !strings.Contains(line.ErrorMessage, row.says) || strings.Contains(line.Reason, "signature does not match") {
			t.Errorf("%q in %s: the record is %q, %q, %q", row.service, row.region, line.EventSource, line.ErrorMessage, line.Reason)
		}
		if len(row.service) > 60 && strings.Contains(fmt.Sprint(line), row.service) {
			t.Errorf("the record repeats what is no name: %+v", line)
		}
	}
}

// TestJSONProtocol: a client of a service with a JSON protocol can read the answer.
func TestJSONProtocol(t *testing.T) {
	s := newServer(t, example(t))
	r := s.signed("root", "redshift-serverless", "POST", `{"workgroupName": "default"}`)
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "RedshiftServerless.GetCredentials")
	a := s.do(r)
	var answer struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal([]byte(a.body), &answer); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	if a.status != 403 || a.header.Get("Content-Type") != "application/x-amz-json-1.1" || a.header.Get("X-Amzn-ErrorType") != answer.Type {
		t.Errorf("%d, %v, %+v", a.status, a.header, answer)
	}
}

// TestHostOnMismatch: if a proxy has rewritten Host, the record and the log have the Host
// that arrived.
func TestHostOnMismatch(t *testing.T) {
	var log bytes.Buffer
	s := &server{t: t, keyring: newKeyring(), directory: build(t, example(t)), now: start}
	config := s.config()
	config.Log = slog.New(slog.NewTextHandler(&log, nil))
	h := httptest.NewServer(api.New(config))
	t.Cleanup(h.Close)
	s.url = h.URL
	r := s.signed("root", "redshift", "POST", query("2012-12-01", "Action", "DescribeClusters"))
	r.Host = "10.0.0.7:8440"
	if f := s.do(r).fault(t); f.Code != "SignatureDoesNotMatch" {
		t.Fatalf("with another Host: %+v", f)
	}
	if line := s.lastLine(); !strings.Contains(line.Reason, `arrived with Host "10.0.0.7:8440"`) {
		t.Errorf("the record has the reason %q", line.Reason)
	}
	h.Close() // the log is written before the answer
	if !strings.Contains(log.String(), "host=10.0.0.7:8440") {
		t.Errorf("the log is %s", log.String())
	}
}
