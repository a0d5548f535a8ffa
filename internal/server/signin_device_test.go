package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/logincreds"
	"github.com/aws/aws-sdk-go-v2/service/signin"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/daypass/daypass/internal/login"
)

// loginOnDevice runs the client of `daypass login --device`. at, in another goroutine, is the person
// who is shown the page and the code.
func (s *signInSite) loginOnDevice(name string, at func(page, code string)) (*login.Session, error) {
	return login.SignInDevice(s.t.Context(), login.Device{
		Config: login.Config{Endpoint: s.api, HTTP: http.DefaultClient, Now: s.now}, Name: name,
		ShowCode: func(page, code string, _ time.Time) { go at(page, code) },
		// The server allows four requests at once and one each second.
		Wait: func(ctx context.Context, _ time.Duration) error { return login.Wait(ctx, time.Second) },
	})
}

// typeCode signs in as a person and enters a code.
func (s *signInSite) typeCode(page, code, person string) *browser {
	b := newBrowser(s.t)
	b.open(page)
	b.send("person", person)
	b.send("user_code", strings.ToLower(code))
	return b
}

// TestDaypassLoginDevice runs the client of `daypass login --device`, from the code to the refresh of
// the keys by the SDK.
func TestDaypassLoginDevice(t *testing.T) {
	s := newSignInSite(t)
	seen := make(chan *browser, 1)
	session, err := s.loginOnDevice("daypass-build\u202e7", func(page, code string) {
		if page != s.api+"/device" || strings.Contains(page, code) {
			t.Errorf("the page is %s", page)
		}
		b := s.typeCode(page, code, "1")
		hasAll(t, "the page", words(b.page), code, "daypass-build_7", "127.0.0.1 , the address of this browser", "Choose the IAM role that it gets", "analyst", "engineer")
		b.send("role", "analyst", "answer", "allow")
		seen <- b
	})
	b := <-seen
	if err != nil || session.ARN != anaAsAnalyst {
		t.Fatalf("SignInDevice = %+v, %v, want %s\n%s", session, err, anaAsAnalyst, b.page)
	}
	hasAll(t, "the page after that", words(b.page), "Go back to the terminal", "ana@example.com")
	dir := t.TempDir()
	if err := session.Save(dir, session.ARN); err != nil {
		t.Fatal(err)
	}
	path, err := logincreds.StandardCachedTokenFilepath(session.ARN, dir)
	if err != nil {
		t.Fatal(err)
	}
	whoami := func(when string) (key string) {
		provider := logincreds.New(signin.New(signin.Options{Region: "us-east-1", BaseEndpoint: &s.api}), path)
		client := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &s.api, Retryer: aws.NopRetryer{}, Credentials: provider})
		if answer, err := client.GetCallerIdentity(t.Context(), nil); err != nil || *answer.Arn != anaAsAnalyst {
			t.Errorf("%s: GetCallerIdentity = %v, %v, want %s", when, answer, err, anaAsAnalyst)
		}
		keys, err := provider.Retrieve(t.Context())
		if err != nil {
			t.Error(err)
		}
		return keys.AccessKeyID
	}
	before := whoami("with the keys of the sign-in")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	file["accessToken"].(map[string]any)["expiresAt"] = "2020-01-01T00:00:00Z"
	data, _ = json.Marshal(file)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if whoami("after they expired") == before {
		t.Error("the keys were not refreshed")
	}
	if !strings.Contains(s.record(), `"grantType":"urn:ietf:params:oauth:grant-type:device_code"`) {
		t.Error("the record does not name the device's grant")
	}

	// The next time the page has the role of the last time chosen. A person who denies gives
	// nothing away, with or without a role in the form.
	_, err = s.loginOnDevice("daypass", func(page, code string) {
		b.open(page)
		b.send("person", "1")
		b.send("user_code", code)
		if !strings.Contains(b.page, `value="analyst" required checked`) {
			t.Errorf("the role of the last time is not chosen: %s", b.page)
		}
		b.send("role", "engineer", "answer", "deny")
		hasAll(t, "the page after that", words(b.page), "The request was denied", "The device did not get any keys")
	})
	if !errors.Is(err, login.ErrDenied) {
		t.Errorf("denied: %v", err)
	}
	_, err = s.loginOnDevice("daypass", func(string, string) { s.offset.Store(int64(11 * time.Minute)) })
	if !errors.Is(err, login.ErrExpired) {
		t.Errorf("eleven minutes later: %v", err)
	}
}

// deviceRequest sends a request of a device to a path of the sign-in service.
func (d *device) deviceRequest(path string, body map[string]string) (answer struct {
	DeviceCode, UserCode, Error, Message, RefreshToken string
}, whole string) {
	d.site.t.Helper()
	data, _ := json.Marshal(body)
	r, err := http.NewRequest("POST", d.site.api+path, bytes.NewReader(data))
	if err != nil {
		d.site.t.Fatal(err)
	}
	r.Header.Set("DPoP", d.proof(func(_, claims map[string]any) { claims["htu"] = d.site.api + path }))
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		d.site.t.Fatal(err)
	}
	defer response.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil || json.Unmarshal(text.Bytes(), &answer) != nil {
		d.site.t.Fatalf("%s: %v %s", path, err, text.String())
	}
	return answer, text.String()
}

// TestLoginDeviceForgeries: each row changes one thing, and gets no keys. At the end the right
// device gets them, once.
func TestLoginDeviceForgeries(t *testing.T) {
	s := newSignInSite(t)
	d, thief := s.device(crossDevice), s.device(crossDevice)
	for name, body := range map[string]map[string]string{
		"no name":        {"clientId": crossDevice},
		"another client": {"clientId": sameDevice, "clientName": "x"},
	} {
		if got, whole := d.deviceRequest("/v1/device_authorization", body); got.DeviceCode != "" || got.Error != "INVALID_REQUEST" {
			t.Errorf("%s: %s", name, whole)
		}
	}
	begun, whole := d.deviceRequest("/v1/device_authorization", map[string]string{"clientId": crossDevice, "clientName": "daypass-here"})
	if strings.Count(whole, begun.UserCode) != 1 {
		t.Errorf("the answer has an address with the user code: %s", whole)
	}
	sso := s.ssoClient(s.api, accountAccess)
	begunSSO := sso.start()
	poll := func(by *device, client, grant, code string) string {
		got, whole := by.deviceRequest("/v1/token", map[string]string{"clientId": client, "grantType": grant, "deviceCode": code, "code": code, "refreshToken": code})
		if got.RefreshToken != "" {
			return whole
		}
		return got.Error
	}
	forgeries := func(when string) {
		for name, row := range map[string]struct {
			by                  *device
			client, grant, code string
		}{
			"a thief of the code":       {thief, crossDevice, deviceGrant, begun.DeviceCode},
			"another client":            {d, sameDevice, deviceGrant, begun.DeviceCode},
			"an altered code":           {d, crossDevice, deviceGrant, begun.DeviceCode + "A"},
			"the user code":             {d, crossDevice, deviceGrant, begun.UserCode},
			"a device code of SSO":      {d, crossDevice, deviceGrant, *begunSSO.DeviceCode},
			"as a code":                 {d, crossDevice, "authorization_code", begun.DeviceCode},
			"as a refresh token":        {d, crossDevice, "refresh_token", begun.DeviceCode},
			"a grant that is unknown":   {d, crossDevice, "password", begun.DeviceCode},
			"as a refresh token, thief": {thief, crossDevice, "refresh_token", begun.DeviceCode},
		} {
			if got := poll(row.by, row.client, row.grant, row.code); got != "INVALID_REQUEST" && got != "TOKEN_EXPIRED" {
				t.Errorf("%s, %s: %s, want a refusal", when, name, got)
			}
		}
		if _, err := sso.poll(&begun.DeviceCode); errorCode(err) != "InvalidGrantException" {
			t.Errorf("%s, at SSO OIDC: %v", when, err)
		}
	}
	forgeries("before it is allowed")

	// The page waits for the device's next request.
	done := make(chan string, 1)
	stop := make(chan bool)
	go func() {
		for {
			select {
			case <-stop:
				close(done)
				return
			case <-time.After(1100 * time.Millisecond):
				if got := poll(d, crossDevice, deviceGrant, begun.DeviceCode); got != "authorization_pending" && got != "slow_down" {
					done <- got
				}
			}
		}
	}()
	b := s.typeCode(s.api+"/device", begun.UserCode, "2")
	close(stop)
	if got := <-done; got != "" {
		t.Fatalf("the device got %s before it was allowed", got)
	}
	page, last := b.page, *b.last
	for name, fields := range map[string][]string{
		"no role":            {"answer", "allow"},
		"a role of others":   {"answer", "allow", "role", "analyst"},
		"a role of no one":   {"answer", "allow", "role", "root"},
		"no answer":          {"role", "engineer"},
		"a different answer": {"answer", "yes", "role", "engineer"},
	} {
		b.page, b.last = page, &last
		if b.send(fields...); b.status < 400 {
			t.Errorf("%s: %d %s", name, b.status, b.page)
		}
	}
	b.page, b.last = page, &last
	b.send("answer", "allow", "role", "engineer")
	if b.status != http.StatusOK {
		t.Fatalf("allowed: %d %s", b.status, b.page)
	}
	b.page, b.last = page, &last
	if b.send("answer", "allow", "role", "engineer"); b.status != http.StatusConflict {
		t.Errorf("allowed again: %d", b.status)
	}
	forgeries("after it was allowed")
	collect := func() string {
		for {
			if got := poll(d, crossDevice, deviceGrant, begun.DeviceCode); got != "slow_down" {
				return got
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
	got := collect()
	var keys tokens
	if err := json.Unmarshal([]byte(got), &keys); err != nil {
		t.Fatalf("the device gets %s", got)
	}
	if arn, err := s.whoami(keys); err != nil || arn != fmt.Sprintf("arn:aws:sts::%s:assumed-role/engineer/bob@example.com", account) {
		t.Errorf("GetCallerIdentity = %s, %v", arn, err)
	}
	if got := collect(); got != "invalid_grant" {
		t.Errorf("a second time: %s", got)
	}
	if other := thief.refresh(keys.RefreshToken); other.status == 200 {
		t.Error("another key refreshes the keys")
	}
	if again := d.refresh(keys.RefreshToken); again.status != 200 {
		t.Errorf("refresh: %+v", again)
	}
}
