package signin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/sts"
)

// moody is an Authority that fails while err is set.
type moody struct {
	allowing
	err error
}

func (m *moody) SignedIn(*http.Request, *sts.Person, Check) error { return m.err }

func (m *moody) Assume(r *http.Request, who *sts.Person, a Assumption) (*Keys, error) {
	if m.err != nil {
		return nil, m.err
	}
	return m.allowing.Assume(r, who, a)
}

// TestDeviceCodeSurvivesAFault: an allowed device whose tokens could not be made, or whose
// request to the sign-in service was one too many of the person, gets them with a later request,
// and then no more.
func TestDeviceCodeSurvivesAFault(t *testing.T) {
	key := testKey(t, 7)
	devices := map[string]func(s *slowStand, code deviceCode, proof string) *httptest.ResponseRecorder{
		"aws sso login": func(s *slowStand, code deviceCode, _ string) *httptest.ResponseRecorder {
			client := registration{ID: []byte("client"), Name: "c", Refreshable: true, NotAfter: proofTime.Add(time.Hour).Unix()}
			code.Client = client.ID
			body, _ := json.Marshal(createTokenRequest{ClientID: s.seal(forClient, client), ClientSecret: s.seal(forSecret, client.ID), GrantType: grantDevice,
				DeviceCode: s.seal(forDeviceCode, code)})
			return s.send(pathSSOToken, "application/json", string(body), nil, func() {})
		},
		"daypass login --device": func(s *slowStand, code deviceCode, proof string) *httptest.ResponseRecorder {
			shown, err := checkProof(proof, tokenURL, s.now)
			if err != nil {
				t.Fatal(err)
			}
			code.Key = shown.key
			body, _ := json.Marshal(tokenRequest{ClientID: crossDevice, GrantType: grantDevice, DeviceCode: s.seal(forLoginDevice, code)})
			return s.send(pathToken, "application/json", string(body), http.Header{"Dpop": {proof}}, func() {})
		},
	}
	for name, send := range devices {
		t.Run(name, func(t *testing.T) {
			s := newSlowStand(t)
			authority := &moody{}
			s.signin.config.Authority = authority
			code := deviceCode{ID: []byte("device"), UserCode: "BCDFGHJK", Name: "c", NotAfter: proofTime.Add(deviceLifetime).Unix()}
			who := s.ana()
			stored := []byte(s.seal(forMeeting+code.UserCode, meeting{Device: &code, Answer: allowed, Identity: &who, Role: "r"}))
			s.signin.config.Rendezvous = func(_ context.Context, _ []byte, _ time.Time, change func([]byte) []byte) error {
				if next := change(stored); next != nil {
					stored = next
				}
				return nil
			}
			poll := func() *httptest.ResponseRecorder {
				s.now = s.now.Add(pollInterval)
				return send(s, code, joseProof(t, key, s.now))
			}
			authority.err = errors.New("the registry does not answer")
			if got := poll(); got.Code != http.StatusInternalServerError {
				t.Fatalf("while nothing can be issued: %d %s, want 500", got.Code, got.Body)
			}
			authority.err = nil
			if name != "aws sso login" {
				for s.signin.people.Take("ana", 0, s.now.Add(pollInterval)) {
				}
				if got := poll(); got.Code != http.StatusTooManyRequests {
					t.Fatalf("one request too many of the person: %d %s, want 429", got.Code, got.Body)
				}
				s.now = s.now.Add(time.Minute)
			}
			if got := poll(); got.Code != http.StatusOK {
				t.Errorf("afterwards: %d %s, want 200", got.Code, got.Body)
			}
			if got := poll(); got.Code == http.StatusOK {
				t.Errorf("once more: %d %s, want a refusal", got.Code, got.Body)
			}
		})
	}
}
