package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sso"
	"github.com/aws/aws-sdk-go-v2/service/ssooidc"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/daypass/daypass/test/etcdtest"
)

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// ssoClient is a registered client of SSO OIDC, with the official SDK.
type ssoClient struct {
	site   *signInSite
	oidc   *ssooidc.Client
	portal *sso.Client
	id     *ssooidc.RegisterClientOutput
}

// ssoClient registers a client. Without scopes it is one that knows no refresh tokens.
func (s *signInSite) ssoClient(api string, scopes ...string) *ssoClient {
	s.t.Helper()
	c := &ssoClient{site: s,
		oidc:   ssooidc.New(ssooidc.Options{Region: "us-east-1", BaseEndpoint: &api, Retryer: aws.NopRetryer{}}),
		portal: sso.New(sso.Options{Region: "us-east-1", BaseEndpoint: &api, Retryer: aws.NopRetryer{}})}
	var err error
	c.id, err = c.oidc.RegisterClient(s.t.Context(), &ssooidc.RegisterClientInput{ClientName: aws.String("botocore-client-work"), ClientType: aws.String("public"), Scopes: scopes})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

const accountAccess = "sso:account:access"

// start begins the sign-in of a device.
func (c *ssoClient) start() *ssooidc.StartDeviceAuthorizationOutput {
	c.site.t.Helper()
	out, err := c.oidc.StartDeviceAuthorization(c.site.t.Context(), &ssooidc.StartDeviceAuthorizationInput{ClientId: c.id.ClientId, ClientSecret: c.id.ClientSecret,
		StartUrl: aws.String("https://identitycenter.amazonaws.com/ssoins-daypass")})
	if err != nil {
		c.site.t.Fatal(err)
	}
	return out
}

func (c *ssoClient) token(change func(*ssooidc.CreateTokenInput)) (*ssooidc.CreateTokenOutput, error) {
	in := &ssooidc.CreateTokenInput{ClientId: c.id.ClientId, ClientSecret: c.id.ClientSecret}
	change(in)
	return c.oidc.CreateToken(context.WithoutCancel(c.site.t.Context()), in)
}

func (c *ssoClient) poll(code *string) (*ssooidc.CreateTokenOutput, error) {
	return c.token(func(in *ssooidc.CreateTokenInput) { in.GrantType, in.DeviceCode = aws.String(deviceGrant), code })
}

func (c *ssoClient) refresh(token *string) (*ssooidc.CreateTokenOutput, error) {
	return c.token(func(in *ssooidc.CreateTokenInput) { in.GrantType, in.RefreshToken = aws.String("refresh_token"), token })
}

// errorCode returns the code of an API error.
func errorCode(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return fmt.Sprint(err)
}

// waiting polls with a device code in the background. The function that it returns stops that.
func (c *ssoClient) waiting(code *string) (stop func()) {
	done := make(chan bool)
	var ended sync.WaitGroup
	ended.Go(func() {
		for {
			if _, err := c.poll(code); errorCode(err) != "AuthorizationPendingException" && errorCode(err) != "SlowDownException" {
				c.site.t.Errorf("a device that waits: %v", err)
			}
			select {
			case <-done:
				return
			case <-time.After(400 * time.Millisecond):
			}
		}
	})
	return func() { close(done); ended.Wait() }
}

// see opens the page for devices as a person, and returns when the page shows the device.
func (c *ssoClient) see(person string, begun *ssooidc.StartDeviceAuthorizationOutput) *browser {
	c.site.t.Helper()
	defer c.waiting(begun.DeviceCode)()
	b := newBrowser(c.site.t)
	b.open(*begun.VerificationUriComplete)
	b.send("person", person)
	if b.status != 200 || !strings.Contains(b.page, *begun.UserCode) || !strings.Contains(b.page, ">Allow<") {
		c.site.t.Fatalf("the page of the device: %d %s", b.status, b.page)
	}
	return b
}

// signIn signs a device in as a person.
func (c *ssoClient) signIn(person string) *ssooidc.CreateTokenOutput {
	c.site.t.Helper()
	begun := c.start()
	c.see(person, begun).send("answer", "allow")
	out, err := c.collect(begun.DeviceCode)
	if err != nil {
		c.site.t.Fatal(err)
	}
	return out
}

// collect polls until the answer is anything but SlowDownException.
func (c *ssoClient) collect(code *string) (*ssooidc.CreateTokenOutput, error) {
	for {
		out, err := c.poll(code)
		if errorCode(err) != "SlowDownException" {
			return out, err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// record returns the audit log.
func (s *signInSite) record() string {
	s.t.Helper()
	var all strings.Builder
	files, _ := filepath.Glob(filepath.Join(s.dir, "data", "audit", "*.jsonl"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			s.t.Fatal(err)
		}
		all.Write(data)
	}
	return all.String()
}

// keys calls GetRoleCredentials, and GetCallerIdentity with the keys.
func (c *ssoClient) keys(token *string, account, role string) (arn string, left time.Duration, err error) {
	out, err := c.portal.GetRoleCredentials(c.site.t.Context(), &sso.GetRoleCredentialsInput{AccessToken: token, AccountId: &account, RoleName: &role})
	if err != nil {
		return "", 0, err
	}
	keys := out.RoleCredentials
	client := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &c.site.api, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(*keys.AccessKeyId, *keys.SecretAccessKey, *keys.SessionToken)})
	who, err := client.GetCallerIdentity(c.site.t.Context(), nil)
	if err != nil {
		return "", 0, err
	}
	return *who.Arn, time.UnixMilli(keys.Expiration).Sub(c.site.now()), nil
}

const account = "123456789012"

// TestSSODevice does what `aws sso login --use-device-code` does, and then what the SDKs do.
func TestSSODevice(t *testing.T) {
	s := newSignInSite(t)
	c := s.ssoClient(s.api, accountAccess)
	begun := c.start()
	if _, err := c.poll(begun.DeviceCode); errorCode(err) != "AuthorizationPendingException" {
		t.Errorf("before anyone has answered: %v", err)
	}
	b := c.see("1", begun)
	for _, want := range []string{"botocore-client-work", "127.0.0.1", "the address of this browser", "just now", "analyst, engineer", "ana@example.com", "press Deny"} {
		if !strings.Contains(b.page, want) {
			t.Errorf("the page lacks %q:\n%s", want, b.page)
		}
	}
	if _, err := c.collect(begun.DeviceCode); errorCode(err) != "AuthorizationPendingException" {
		t.Errorf("before the button was pressed: %v", err)
	}
	b.send("answer", "allow")
	if b.status != 200 || !strings.Contains(b.page, "Go back to the terminal") {
		t.Errorf("after the button: %d %s", b.status, b.page)
	}
	got, err := c.collect(begun.DeviceCode)
	if err != nil || got.ExpiresIn != 3600 || *got.TokenType != "Bearer" || got.RefreshToken == nil {
		t.Fatalf("the device got %+v, %v, want tokens", got, err)
	}
	if _, err := c.collect(begun.DeviceCode); errorCode(err) != "InvalidGrantException" {
		t.Errorf("the device code a second time: %v", err)
	}
	accounts, err := c.portal.ListAccounts(t.Context(), &sso.ListAccountsInput{AccessToken: got.AccessToken})
	if err != nil || len(accounts.AccountList) != 1 || *accounts.AccountList[0].AccountId != account || *accounts.AccountList[0].EmailAddress != "ana@example.com" {
		t.Errorf("ListAccounts = %+v, %v", accounts, err)
	}
	var names []string
	pages := sso.NewListAccountRolesPaginator(c.portal, &sso.ListAccountRolesInput{AccessToken: got.AccessToken, AccountId: aws.String(account), MaxResults: aws.Int32(1)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, role := range page.RoleList {
			names = append(names, *role.RoleName)
		}
	}
	if fmt.Sprint(names) != "[analyst engineer]" {
		t.Errorf("ListAccountRoles = %v", names)
	}
	if arn, left, err := c.keys(got.AccessToken, account, "analyst"); err != nil || arn != anaAsAnalyst || left < 59*time.Minute || left > time.Hour {
		t.Errorf("GetRoleCredentials = %s for %v, %v", arn, left, err)
	}
	again, err := c.refresh(got.RefreshToken)
	if err != nil || again.RefreshToken == nil {
		t.Fatalf("refresh: %+v, %v", again, err)
	}
	if arn, _, err := c.keys(again.AccessToken, account, "engineer"); err != nil || !strings.HasSuffix(arn, "/engineer/ana@example.com") {
		t.Errorf("after a refresh: %s, %v", arn, err)
	}
	for name, row := range map[string]struct{ account, role, want string }{
		"unknown role":    {account, "nobody", "ForbiddenException"},
		"another account": {"210987654321", "analyst", "ForbiddenException"},
	} {
		if _, _, err := c.keys(got.AccessToken, row.account, row.role); errorCode(err) != row.want {
			t.Errorf("%s: %v, want %s", name, err, row.want)
		}
	}
	record := s.record()
	for _, want := range []string{`"eventName":"CreateToken"`, `"clientName":"botocore-client-work","grantType":"` + deviceGrant + `","roleSessionName":"ana@example.com"`,
		`"grantType":"refresh_token"`, `"eventName":"GetRoleCredentials"`} {
		if !strings.Contains(record, want) {
			t.Errorf("the record lacks %s:\n%s", want, record)
		}
	}
	// Logging out ends the sign-in, not only this token.
	if _, err := c.portal.Logout(t.Context(), &sso.LogoutInput{AccessToken: got.AccessToken}); err != nil {
		t.Error(err)
	}
	if _, _, err := c.keys(again.AccessToken, account, "analyst"); errorCode(err) != "UnauthorizedException" {
		t.Errorf("after Logout: %v", err)
	}
	if _, err := c.refresh(again.RefreshToken); errorCode(err) != "InvalidGrantException" {
		t.Errorf("refresh after Logout: %v", err)
	}
	if text := s.log.String(); strings.Contains(text, "level=ERROR") {
		t.Errorf("the log has errors:\n%s", text)
	}
}

// TestSSOBeforeRefreshTokens: a client without scopes, as profiles without an sso-session make it,
// gets one token for the whole sign-in. The person types the code.
func TestSSOBeforeRefreshTokens(t *testing.T) {
	s := newSignInSite(t)
	c := s.ssoClient(s.api)
	begun := c.start()
	stop := c.waiting(begun.DeviceCode)
	b := newBrowser(t)
	b.open(*begun.VerificationUri)
	b.send("person", "2")
	if b.status != 200 || !strings.Contains(b.page, `name="user_code"`) {
		t.Fatalf("the page for the code: %d %s", b.status, b.page)
	}
	b.send("user_code", "no code!")
	if b.status != http.StatusNotFound || !strings.Contains(b.page, "no code!") {
		t.Errorf("no code: %d %s", b.status, b.page)
	}
	b.send("user_code", strings.ToLower(strings.ReplaceAll(*begun.UserCode, "-", " ")))
	stop()
	b.send("answer", "allow")
	got, err := c.collect(begun.DeviceCode)
	if err != nil || got.RefreshToken != nil || got.ExpiresIn < 12*3600-60 || got.ExpiresIn > 12*3600 {
		t.Fatalf("the device got %+v, %v, want a token for 12 hours", got, err)
	}
	if arn, _, err := c.keys(got.AccessToken, account, "engineer"); err != nil || !strings.HasSuffix(arn, "/bob@example.com") {
		t.Errorf("GetRoleCredentials = %s, %v", arn, err)
	}
	if _, _, err := c.keys(got.AccessToken, account, "analyst"); errorCode(err) != "ForbiddenException" {
		t.Errorf("Bob as an analyst: %v", err)
	}
	s.offset.Store(int64(12*time.Hour - 10*time.Minute))
	last, err := c.portal.GetRoleCredentials(t.Context(), &sso.GetRoleCredentialsInput{AccessToken: got.AccessToken, AccountId: aws.String(account), RoleName: aws.String("engineer")})
	if err != nil || time.UnixMilli(last.RoleCredentials.Expiration).After(s.now().Add(10*time.Minute)) {
		t.Errorf("ten minutes before the end: %+v, %v, want keys for no longer", last, err)
	}
	s.offset.Store(int64(12 * time.Hour))
	if _, _, err := c.keys(got.AccessToken, account, "engineer"); errorCode(err) != "UnauthorizedException" {
		t.Errorf("after the end: %v", err)
	}
}

// TestSSODenied: the device gets nothing if the person denies, or if no IAM role is open to them. A
// code that is not answered expires.
func TestSSODenied(t *testing.T) {
	s := newSignInSite(t)
	c := s.ssoClient(s.api, accountAccess)
	begun := c.start()
	b := c.see("1", begun)
	first := b.page
	b.send("answer", "deny")
	if !strings.Contains(b.page, "was denied") {
		t.Errorf("after Deny: %d %s", b.status, b.page)
	}
	b.page = first
	b.send("answer", "allow") // the previous page, as with the back button
	if b.status != http.StatusConflict {
		t.Errorf("Allow after Deny: %d %s", b.status, b.page)
	}
	if _, err := c.collect(begun.DeviceCode); errorCode(err) != "AccessDeniedException" {
		t.Errorf("the device: %v", err)
	}
	begun = c.start()
	b = newBrowser(t)
	b.open(*begun.VerificationUriComplete)
	b.send("person", "3")
	if b.status != http.StatusForbidden || !strings.Contains(b.page, "no IAM role lets you in") {
		t.Errorf("Eve's page: %d %s", b.status, b.page)
	}
	s.offset.Store(int64(10 * time.Minute))
	if _, err := c.collect(begun.DeviceCode); errorCode(err) != "ExpiredTokenException" {
		t.Errorf("after ten minutes: %v", err)
	}
}

// pkce is a sign-in of a registered client in the browser of its machine.
func (c *ssoClient) pkce(person string) (code, verifier string) {
	t := c.site.t
	t.Helper()
	verifier = rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(verifier))
	b := newBrowser(t)
	b.open(c.site.api + "/authorize?" + url.Values{"response_type": {"code"}, "client_id": {*c.id.ClientId}, "redirect_uri": {loopback}, "state": {"uuid-state"},
		"code_challenge_method": {"S256"}, "scopes": {accountAccess}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}}.Encode())
	b.send("person", person)
	if b.status != 200 || !strings.Contains(b.page, "botocore-client-work") || !strings.Contains(b.page, "analyst") {
		t.Fatalf("the page: %d %s", b.status, b.page)
	}
	b.send()
	if b.status != http.StatusSeeOther || !strings.HasPrefix(b.last.String(), loopback+"?") || b.last.Query().Get("state") != "uuid-state" {
		t.Fatalf("after the button: %d at %s\n%s", b.status, b.last, b.page)
	}
	return b.last.Query().Get("code"), verifier
}

const loopback = "http://127.0.0.1:39999/oauth/callback"

func (c *ssoClient) redeem(code, verifier string, change func(*ssooidc.CreateTokenInput)) (*ssooidc.CreateTokenOutput, error) {
	return c.token(func(in *ssooidc.CreateTokenInput) {
		in.GrantType, in.Code, in.CodeVerifier, in.RedirectUri = aws.String("authorization_code"), &code, &verifier, aws.String(loopback)
		if change != nil {
			change(in)
		}
	})
}

// TestSSOForgeries: each row changes one thing in a valid exchange, which must then yield no
// tokens.
func TestSSOForgeries(t *testing.T) {
	s := newSignInSite(t)
	c, other := s.ssoClient(s.api, accountAccess), s.ssoClient(s.api, accountAccess)
	code, verifier := c.pkce("1")
	begun := c.start()
	str := aws.String
	cut := func(p *string) *string { return str((*p)[:len(*p)-5] + "AAAAA") }
	for name, row := range map[string]struct {
		change func(*ssooidc.CreateTokenInput)
		want   string
	}{
		"another verifier":     {func(in *ssooidc.CreateTokenInput) { in.CodeVerifier = str(rand.Text() + rand.Text()) }, "InvalidGrantException"},
		"no verifier":          {func(in *ssooidc.CreateTokenInput) { in.CodeVerifier = nil }, "InvalidGrantException"},
		"another redirect_uri": {func(in *ssooidc.CreateTokenInput) { in.RedirectUri = str("http://127.0.0.1:1/oauth/callback") }, "InvalidGrantException"},
		"another client": {func(in *ssooidc.CreateTokenInput) {
			in.ClientId, in.ClientSecret = other.id.ClientId, other.id.ClientSecret
		}, "InvalidGrantException"},
		"another's secret":  {func(in *ssooidc.CreateTokenInput) { in.ClientSecret = other.id.ClientSecret }, "InvalidClientException"},
		"altered client":    {func(in *ssooidc.CreateTokenInput) { in.ClientId = cut(c.id.ClientId) }, "InvalidClientException"},
		"another grant":     {func(in *ssooidc.CreateTokenInput) { in.GrantType = str("password") }, "UnsupportedGrantTypeException"},
		"altered code":      {func(in *ssooidc.CreateTokenInput) { in.Code = cut(&code) }, "InvalidGrantException"},
		"a device code":     {func(in *ssooidc.CreateTokenInput) { in.Code = begun.DeviceCode }, "InvalidGrantException"},
		"a code as refresh": {func(in *ssooidc.CreateTokenInput) { in.GrantType, in.RefreshToken = str("refresh_token"), &code }, "InvalidGrantException"},
		"a code as device":  {func(in *ssooidc.CreateTokenInput) { in.GrantType, in.DeviceCode = str(deviceGrant), &code }, "InvalidGrantException"},
		"an enormous code":  {func(in *ssooidc.CreateTokenInput) { in.Code = str(strings.Repeat("A", 40_000)) }, "InvalidGrantException"},
	} {
		if out, err := c.redeem(code, verifier, row.change); errorCode(err) != row.want {
			t.Errorf("%s: %v, %v, want %s", name, out, err, row.want)
		}
	}
	got, err := c.redeem(code, verifier, nil)
	if err != nil {
		t.Fatalf("the good code: %v", err)
	}
	if _, err := c.redeem(code, verifier, nil); errorCode(err) != "InvalidGrantException" {
		t.Errorf("the code a second time: %v", err)
	}
	if _, err := other.refresh(got.RefreshToken); errorCode(err) != "InvalidGrantException" {
		t.Errorf("the refresh token of another client: %v", err)
	}
	if _, err := other.poll(begun.DeviceCode); errorCode(err) != "InvalidGrantException" {
		t.Errorf("the device code of another client: %v", err)
	}
	for name, token := range map[string]*string{"refresh token": got.RefreshToken, "code": &code, "altered": cut(got.AccessToken), "junk": str("x")} {
		if _, _, err := c.keys(token, account, "analyst"); errorCode(err) != "UnauthorizedException" {
			t.Errorf("%s as access token: %v", name, err)
		}
	}
	if arn, _, err := c.keys(got.AccessToken, account, "analyst"); err != nil || arn != anaAsAnalyst {
		t.Errorf("GetRoleCredentials = %s, %v", arn, err)
	}
	// The tokens of `aws login` are no tokens here, nor the other way around.
	d := s.device(sameDevice)
	login := d.redeem(d.signIn("1", "analyst"))
	if _, err := c.refresh(&login.RefreshToken); errorCode(err) != "InvalidGrantException" {
		t.Errorf("a refresh token of aws login: %v", err)
	}
	if got := d.refresh(*got.RefreshToken); got.status == 200 {
		t.Error("aws login has taken a refresh token of aws sso login")
	}
	for name, row := range map[string]struct {
		change func(*ssooidc.RegisterClientInput)
		want   string
	}{
		"confidential": {func(in *ssooidc.RegisterClientInput) { in.ClientType = str("confidential") }, "InvalidClientMetadataException"},
		"scope":        {func(in *ssooidc.RegisterClientInput) { in.Scopes = []string{"codewhisperer:completions"} }, "InvalidScopeException"},
		"grant":        {func(in *ssooidc.RegisterClientInput) { in.GrantTypes = []string{"implicit"} }, "UnsupportedGrantTypeException"},
		"redirect":     {func(in *ssooidc.RegisterClientInput) { in.RedirectUris = []string{"https://evil.example/"} }, "InvalidRedirectUriException"},
	} {
		in := &ssooidc.RegisterClientInput{ClientName: str("x"), ClientType: str("public")}
		row.change(in)
		if _, err := c.oidc.RegisterClient(t.Context(), in); errorCode(err) != row.want {
			t.Errorf("registering, %s: %v, want %s", name, err, row.want)
		}
	}
}

// TestDevicePageForgeries: the answer to a device has to come from the page that the person saw,
// in their browser.
func TestDevicePageForgeries(t *testing.T) {
	s := newSignInSite(t)
	c := s.ssoClient(s.api, accountAccess)
	begun := c.start()
	ana := c.see("1", begun)
	asked := ana.page
	for name, change := range map[string]func(*http.Request){
		"another site": func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"its origin":   func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
		"no cookie":    func(r *http.Request) { r.Header.Set("Cookie", "") },
	} {
		form := url.Values{"answer": {"allow"}, "sealed": {hiddenFields.FindStringSubmatch(asked)[2]}}
		r, err := http.NewRequest("POST", s.api+"/sign-in/device/answer", strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for _, cookie := range ana.http.Jar.Cookies(r.URL) {
			r.AddCookie(cookie)
		}
		change(r)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusForbidden && response.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s, want a refusal", name, response.Status)
		}
	}
	bob := newBrowser(t)
	bob.open(s.api + "/device")
	bob.send("person", "2")
	entry := bob.page
	bob.page = asked // the page of Ana's browser
	bob.send("answer", "allow")
	if bob.status != http.StatusBadRequest {
		t.Errorf("the form of another browser: %d %s", bob.status, bob.page)
	}
	// One of our forms that is not about a device, sent as the answer.
	bob.page = strings.Replace(entry, `action="/sign-in/device"`, `action="/sign-in/device/answer"`, 1)
	bob.send("answer", "allow")
	if bob.status != http.StatusBadRequest {
		t.Errorf("the form for the code as an answer: %d %s", bob.status, bob.page)
	}
	if _, err := c.collect(begun.DeviceCode); errorCode(err) != "AuthorizationPendingException" {
		t.Errorf("after all this the device gets %v", err)
	}
	// Guessing is limited for each person.
	limited := false
	for i := 0; i < 20 && !limited; i++ {
		bob.page = entry
		// A code that a device shows is found at once, so this takes no time.
		bob.send("user_code", *begun.UserCode)
		limited = bob.status == http.StatusTooManyRequests
	}
	if !limited {
		t.Error("a person may try codes without end")
	}
	for _, path := range []string{"/client/register", "/device_authorization", "/token", "/logout"} {
		r, _ := http.NewRequest("POST", s.api+path, strings.NewReader("{}"))
		r.Header.Set("Origin", "https://evil.example")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode < 400 || response.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s from a web page: %s", path, response.Status)
		}
	}
}

// TestRevocationEndsSSO: a revocation of one role session of a person ends their sign-in for all
// IAM roles, and no one else's. A changed trust policy is in force at the next call.
func TestRevocationEndsSSO(t *testing.T) {
	s := newSignInSite(t)
	c, b := s.ssoClient(s.api, accountAccess), s.ssoClient(s.api, accountAccess)
	code, verifier := c.pkce("1")
	anas, err := c.redeem(code, verifier, nil)
	if err != nil {
		t.Fatal(err)
	}
	bobs := b.signIn("2")
	s.offset.Store(int64(time.Second)) // credentials and sign-ins have whole seconds
	if err := s.revokePrincipal(anaAsAnalyst); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"analyst", "engineer"} {
		if arn, _, err := c.keys(anas.AccessToken, account, role); errorCode(err) != "UnauthorizedException" {
			t.Errorf("Ana as %s: %s, %v", role, arn, err)
		}
	}
	if _, err := c.refresh(anas.RefreshToken); errorCode(err) != "InvalidGrantException" {
		t.Errorf("Ana's refresh token: %v", err)
	}
	if _, _, err := b.keys(bobs.AccessToken, account, "engineer"); err != nil {
		t.Errorf("Bob: %v", err)
	}
	if err := s.revokePrincipal("arn:aws:iam::123456789012:role/analyst"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.refresh(bobs.RefreshToken); err != nil {
		t.Errorf("Bob, after a revocation of an IAM role that he has not: %v", err)
	}
	s.offset.Store(int64(3 * time.Second))
	code, verifier = c.pkce("1")
	if anas, err = c.redeem(code, verifier, nil); err != nil {
		t.Fatalf("signing in again: %v", err)
	}
	if _, _, err := c.keys(anas.AccessToken, account, "engineer"); err != nil {
		t.Errorf("after signing in again: %v", err)
	}
	text, _ := os.ReadFile(s.config)
	name := strings.TrimPrefix(s.idp, "http://")
	if err := os.WriteFile(s.config, []byte(strings.Replace(string(text), name+`:groups": engineers`, name+`:groups": directors`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.reload()
	if _, _, err := c.keys(anas.AccessToken, account, "engineer"); errorCode(err) != "ForbiddenException" {
		t.Errorf("after the trust policy has changed: %v", err)
	}
}

// TestSSOOverServers: the device uses one server, the browser another. Many requests with one
// device code, at both servers, get tokens once. A logout at one server is in force at the other.
func TestSSOOverServers(t *testing.T) {
	t.Parallel() // the test mostly waits
	etcd := etcdtest.Start(t)
	s := newSignInSiteWith(t, fmt.Sprintf("registry: {etcd: {endpoints: [%q]}}\n", etcd.URL))
	there := newServed(t, "127.0.0.1:1", "")
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	listen := strings.TrimPrefix(s.api, "http://")
	if err := os.WriteFile(there.config, []byte(strings.Replace(string(text), `listen: "`+listen, `listen: "127.0.0.1:0`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := os.ReadFile(filepath.Join(s.dir, "data", "keyring.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(there.dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(there.dir, "data", "keyring.json"), keys, 0o600); err != nil {
		t.Fatal(err)
	}
	there.start()
	c := s.ssoClient(there.where.API, accountAccess)
	here := *c
	here.oidc = ssooidc.New(ssooidc.Options{Region: "us-east-1", BaseEndpoint: &s.api, Retryer: aws.NopRetryer{}})
	begun := c.start()
	c.see("1", begun).send("answer", "allow")
	var mu sync.Mutex
	var taken []*ssooidc.CreateTokenOutput
	var all sync.WaitGroup
	for i := range 8 {
		by := c
		if i%2 == 1 {
			by = &here
		}
		all.Go(func() {
			out, err := by.collect(begun.DeviceCode)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				taken = append(taken, out)
			} else if errorCode(err) != "InvalidGrantException" {
				t.Errorf("a request with the device code: %v", err)
			}
		})
	}
	all.Wait()
	if len(taken) != 1 {
		t.Fatalf("%d requests got tokens, want 1", len(taken))
	}
	if arn, _, err := c.keys(taken[0].AccessToken, account, "analyst"); err != nil || arn != anaAsAnalyst {
		t.Errorf("GetRoleCredentials = %s, %v", arn, err)
	}
	if _, err := c.portal.Logout(t.Context(), &sso.LogoutInput{AccessToken: taken[0].AccessToken}); err != nil {
		t.Fatal(err)
	}
	if _, err := here.refresh(taken[0].RefreshToken); errorCode(err) != "InvalidGrantException" {
		t.Errorf("refresh at the other server: %v", err)
	}
}
