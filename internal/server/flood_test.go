package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/go-jose/go-jose/v4"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/throttle"
	"github.com/daypass/daypass/test/pgtest"
	"github.com/daypass/daypass/test/sitetest"
)

// issuer signs the tokens of https://idp.example.com.
type issuer struct{ key ed25519.PrivateKey }

// addIssuer adds an identity provider to the configuration, and an IAM role that the
// provider's subject "build" may assume.
func (s *served) addIssuer() *issuer {
	s.t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Algorithm: "EdDSA", Use: "sig"}}})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "jwks.json"), set, 0o600); err != nil {
		s.t.Fatal(err)
	}
	text, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("\niam:\n"), []byte(`
iam:
  oidc_providers: [{issuer: "https://idp.example.com", audiences: [daypass], jwks_file: jwks.json}]
  roles:
    - name: ci
      trust_policy: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "sts:AssumeRoleWithWebIdentity",
        Principal: {Federated: "arn:aws:iam::123456789012:oidc-provider/idp.example.com"}, Condition: {StringEquals: {"idp.example.com:sub": build}}}]}
`), 1)
	if err := os.WriteFile(s.config, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return &issuer{key}
}

// form returns the form of a call with a token for a subject.
func (i *issuer) form(t *testing.T, subject string, now time.Time) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: i.key, KeyID: "1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	claims, _ := json.Marshal(map[string]any{"iss": "https://idp.example.com", "aud": "daypass", "sub": subject,
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()})
	jws, err := signer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return url.Values{"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleSessionName": {strings.Repeat("n", 64)},
		"RoleArn": {"arn:aws:iam::123456789012:role/ci"}, "WebIdentityToken": {token}}.Encode()
}

// from returns clients that connect from an address of their own.
func from(n int) (*http.Client, *net.Dialer) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 4, byte(1+n))}}
	return &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}, dialer
}

// auditBytes returns the size of the audit log.
func (s *served) auditBytes() (sum int64) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "data", "audit", "*.jsonl"))
	if err != nil || len(files) == 0 {
		s.t.Fatalf("no audit log: %v", err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			s.t.Fatal(err)
		}
		sum += info.Size()
	}
	return sum
}

// flood attacks until almost nothing more is written, or for a maximum time, because on a
// slow machine the buckets refill in the meantime.
func (s *served) flood(attack func(n int)) (grown int64) {
	before, began := s.auditBytes(), time.Now()
	for n, last := 0, before; ; {
		for range 40 {
			attack(n)
			n++
		}
		now := s.auditBytes()
		if now-last <= audit.MaxLine || time.Since(began) > 20*time.Second {
			return now - before
		}
		last = now
	}
}

// TestAuditLogCannotBeFilled: several attackers send whatever makes the longest records, for
// two minutes and as fast as they get answers: strangers from many addresses, holders of a
// token with and without a role that trusts it, the holder of an access key without rights,
// and the holder of a database credential. Each causes as many bytes as its limit allows, and
// no more.
func TestAuditLogCannotBeFilled(t *testing.T) {
	const perPrincipal = 16384
	s := newServed(t, "127.0.0.1:1", fmt.Sprintf("\naudit: {principal_bytes: %d}\n", perPrincipal))
	tokens := s.addIssuer()
	s.start()
	s.log = &pgtest.Log{} // the log during the flood is of no interest
	const addresses = 50
	clients, dialers := make([]*http.Client, addresses), make([]*net.Dialer, addresses)
	for i := range addresses {
		clients[i], dialers[i] = from(i)
		defer clients[i].CloseIdleConnections()
	}
	longest := strings.Repeat("\xff", 5000)
	send := func(client *http.Client, body string, sign func(*http.Request)) {
		r, err := http.NewRequest("POST", s.where.API+"/", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("User-Agent", longest)
		if sign != nil {
			sign(r)
		}
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	signed := func(key [2]string, body string) func(*http.Request) {
		sum := sha256.Sum256([]byte(body))
		return func(r *http.Request) {
			if err := v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: key[0], SecretAccessKey: key[1]}, r,
				hex.EncodeToString(sum[:]), "redshift", "us-east-1", s.now()); err != nil {
				t.Fatal(err)
			}
		}
	}
	long := url.Values{"Action": {"GetClusterCredentials"}, "Version": {"2012-12-01"}, "ClusterIdentifier": {"examplecluster"},
		"DbUser": {strings.Repeat("\x01", 2000)}, "DbName": {strings.Repeat("\"", 2000)}}.Encode()
	startup := func(user, database, application string) []byte {
		b := binary.BigEndian.AppendUint32(make([]byte, 4), 3<<16)
		for _, text := range []string{"user", user, "database", database, "application_name", application, ""} {
			b = append(append(b, text...), 0)
		}
		binary.BigEndian.PutUint32(b, uint32(len(b)))
		return b
	}
	refused := func(n int, packet []byte, password string) {
		conn, err := dialers[n%addresses].Dial("tcp", s.where.Gateway.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = conn.Write(packet)
		if password != "" {
			_, _ = io.ReadFull(conn, make([]byte, 9))
			message := binary.BigEndian.AppendUint32([]byte{'p'}, uint32(4+len(password)+1))
			_, _ = conn.Write(append(append(message, password...), 0))
		}
		_, _ = io.Copy(io.Discard, conn)
	}
	hostile := startup(strings.Repeat("\x01", 900), strings.Repeat("\x01", 900), strings.Repeat("\x01", 900))
	hostile = bytes.Replace(hostile, []byte("application_name"), []byte("role\x00postgres\x00x.y"), 1)
	binary.BigEndian.PutUint32(hostile, uint32(len(hostile)))

	var credential issued
	var form, stranger string
	principal := throttle.Limit{Bytes: perPrincipal, BytesBurst: principalBurst * perPrincipal, Concurrent: 1}
	one := func(all throttle.Limit) throttle.Limit { // the share of one address or name
		return throttle.Limit{Bytes: all.Bytes / 8, BytesBurst: all.BytesBurst / 8}
	}
	rows := []struct {
		name   string
		limit  throttle.Limit
		attack func(n int)
		grown  int64
	}{
		{name: "strangers at the API", limit: api.AllStrangerLines, attack: func(n int) {
			if n%2 == 0 {
				send(clients[n%addresses], "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn="+url.QueryEscape(longest), nil)
				return
			}
			send(clients[n%addresses], long, signed([2]string{fmt.Sprintf("AKIA%012d", n%addresses), "wrong"}, long))
		}},
		{name: "strangers at the gateway", limit: gateway.AllStrangerLines, attack: func(n int) { refused(n, hostile, "") }},
		{name: "a key without rights", limit: principal, attack: func(n int) {
			send(clients[n%addresses], long, signed(sitetest.Keys["bob"], long))
		}},
		{name: "a token that may", limit: principal.Share(8), attack: func(n int) { send(clients[n%addresses], form, nil) }},
		{name: "a token that may not", limit: one(api.AllStrangerLines), attack: func(n int) { send(clients[n%addresses], stranger, nil) }},
		{name: "a database credential", limit: one(gateway.AllStrangerLines), attack: func(n int) {
			refused(n, startup(credential.DbUser, strings.Repeat("\x01", 900), strings.Repeat("\x01", 900)), credential.DbPassword)
		}},
	}
	const minutes, step = 2, time.Minute // one for the bursts, and one for what comes after them
	if credential = s.issue(s.now()); credential.DbPassword == "" {
		t.Fatalf("no credential: %+v", credential)
	}
	began := s.now()
	for range minutes {
		form, stranger = tokens.form(t, "build", s.now()), tokens.form(t, strings.Repeat("s", 2000), s.now())
		// The first row uses the strangers' bound at the API; the row with the unauthorized
		// token has a share of the same bound.
		for i := range rows {
			rows[i].grown += s.flood(rows[i].attack)
		}
		s.offset.Add(int64(step))
	}
	var sum int64
	took := s.now().Sub(began) // includes the time that the floods took
	for _, row := range rows {
		most := row.limit.Most(took, audit.MaxLine) + audit.MaxLine
		t.Logf("%s: %d bytes in %d minutes, at most %d", row.name, row.grown, minutes, most)
		least := row.limit.Most((minutes-1)*step, audit.MaxLine) / 2
		if row.name == "a token that may not" {
			least = 1 // the strangers use up most of this limit
		}
		if row.grown > most || row.grown < least {
			t.Errorf("%s wrote %d bytes, want up to %d, and more than %d", row.name, row.grown, most, least)
		}
		sum += row.grown
	}
	if bytes := s.auditBytes(); bytes > sum+minutes*audit.MaxLine {
		t.Errorf("%d bytes in the audit log, want %d", bytes, sum)
	}
}

// TestStatedBounds: docs/operations.md states the same bounds on written bytes per hour as the
// constants.
func TestStatedBounds(t *testing.T) {
	cfg := parse(t, smallConfig)
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	principal := principalLimit(cfg)
	atGateway := gatewayLimit(principal)
	hour := func(l throttle.Limit) string {
		return fmt.Sprintf("%d MB", (l.Most(time.Hour, audit.MaxLine)+999_999)/1_000_000)
	}
	for _, want := range []string{
		"strangers, at the API | " + hour(api.AllStrangerLines),
		"strangers, at the gateway | " + hour(gateway.AllStrangerLines),
		"logons that are refused although the credential is good | " + hour(gateway.AllStrangerLines),
		"one IAM user or IAM role, calls | " + hour(principal),
		"one IAM user or IAM role, logons and sessions | " + hour(atGateway),
		"one subject of an identity provider | " + hour(principal.Share(api.Subjects)),
		"all subjects of one identity provider | " + hour(throttle.Limit{Bytes: principal.Bytes, BytesBurst: principal.BytesBurst, Concurrent: principal.Concurrent}),
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("docs/operations.md does not say %q", want)
		}
	}
}
