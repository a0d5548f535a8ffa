package server

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

// TestTokensOfASignInAreForSigningIn: a person can obtain their own ID token if the client has
// no secret. The token must not give them a session with a name of their choice, or one that a
// revocation of the sign-in does not reach.
func TestTokensOfASignInAreForSigningIn(t *testing.T) {
	s := newSignInSite(t)
	verifier, nowhere := rand.Text()+rand.Text(), s.api+"/sign-in/callback"
	sum := sha256.Sum256([]byte(verifier))
	b := newBrowser(t)
	b.http.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		b.last = r.URL
		if strings.HasPrefix(r.URL.String(), nowhere) {
			return http.ErrUseLastResponse
		}
		return nil
	}
	b.open(s.idp + "/authorize?" + url.Values{"response_type": {"code"}, "client_id": {"daypass"}, "scope": {"openid email"}, "redirect_uri": {nowhere}, "state": {"x"},
		"code_challenge_method": {"S256"}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}}.Encode())
	b.send("person", "1")
	r, err := http.NewRequest("POST", s.idp+"/oauth/token", strings.NewReader(url.Values{"grant_type": {"authorization_code"}, "code": {b.last.Query().Get("code")},
		"redirect_uri": {nowhere}, "code_verifier": {verifier}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("daypass", url.QueryEscape("provider's secret"))
	b.do(r)
	var got struct {
		Token string `json:"id_token"`
	}
	if err := json.Unmarshal([]byte(b.page), &got); err != nil || got.Token == "" {
		t.Fatalf("the provider: %d %s, %v", b.status, b.page, err)
	}
	client := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &s.api, Retryer: aws.NopRetryer{}})
	answer, err := client.AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: aws.String("arn:aws:iam::123456789012:role/analyst"), RoleSessionName: aws.String("bob@example.com"), WebIdentityToken: &got.Token})
	if refused, ok := errors.AsType[smithy.APIError](err); !ok || refused.ErrorCode() != "InvalidIdentityToken" || !strings.Contains(refused.ErrorMessage(), "another audience") {
		t.Errorf("AssumeRoleWithWebIdentity as bob@example.com = %+v, %v, want InvalidIdentityToken", answer, err)
	}
}
