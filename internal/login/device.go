package login

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The ends of a device's sign-in that are not failures.
var (
	ErrDenied  = errors.New("the request was denied in the browser: nothing has been saved")
	ErrExpired = errors.New("the code has expired, because no one allowed the request in time: run the command again")
)

// Device configures the sign-in of a machine without a browser. All fields are required.
type Device struct {
	Config // Endpoint, HTTP and Now
	// Name is what the page shows the person as the name of this machine.
	Name string
	// ShowCode tells the person the page to open and the code to enter there.
	ShowCode func(page, code string, expires time.Time)
	// Wait waits between two requests, and returns an error if the context ends before.
	Wait func(context.Context, time.Duration) error
}

// Wait waits for a time, or until the context ends.
func Wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

const (
	grantDevice = "urn:ietf:params:oauth:grant-type:device_code"
	// defaultInterval is the pause between requests if the server names none, and also what
	// slow_down adds to it: RFC 8628, sections 3.2 and 3.5.
	defaultInterval = 5 * time.Second
	maxInterval     = time.Minute
)

// started is the answer to the first request of a device.
type started struct {
	DeviceCode      string `json:"deviceCode"`
	UserCode        string `json:"userCode"`
	VerificationURI string `json:"verificationUri"`
	ExpiresIn       int    `json:"expiresIn"`
	Interval        int    `json:"interval"`
}

// SignInDevice signs a person in who enters a code in a browser on any machine (RFC 8628), and
// returns the session. The errors include ErrDenied and ErrExpired.
func SignInDevice(ctx context.Context, d Device) (*Session, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	base := strings.TrimRight(d.Endpoint, "/")
	var begun started
	if err := d.post(ctx, key, base+"/v1/device_authorization", map[string]string{"clientId": crossDevice, "clientName": d.Name}, &begun); err != nil {
		return nil, err
	}
	if err := begun.check(base); err != nil {
		return nil, fmt.Errorf("%s: %w", base, err)
	}
	end := d.Now().Add(time.Duration(begun.ExpiresIn) * time.Second)
	d.ShowCode(begun.VerificationURI, begun.UserCode, end)
	pause := defaultInterval
	if begun.Interval > 0 {
		pause = min(time.Duration(begun.Interval)*time.Second, maxInterval)
	}
	var last error // of a request that did not arrive
	for {
		if err := d.Wait(ctx, pause); err != nil {
			return nil, err
		}
		if !d.Now().Before(end) {
			return nil, errors.Join(ErrExpired, last)
		}
		session, err := d.redeem(ctx, key, crossDevice, map[string]string{"clientId": crossDevice, "grantType": grantDevice, "deviceCode": begun.DeviceCode})
		var refused *refusal
		switch {
		case err == nil:
			return session, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !errors.As(err, &refused): // RFC 8628, section 3.5: wait longer after a failed connection
			last, pause = err, min(2*pause, maxInterval)
		case refused.code == "authorization_pending":
			last = nil
		case refused.code == "slow_down":
			last, pause = nil, min(pause+defaultInterval, maxInterval)
		case refused.code == "access_denied":
			return nil, ErrDenied
		case refused.code == "expired_token":
			return nil, ErrExpired
		case refused.status >= 500:
			last, pause = err, min(2*pause, maxInterval)
		default:
			return nil, err
		}
	}
}

// check refuses an answer that a person must not be shown. The page has to be the server's own:
// another one could ask for the person's password.
func (s *started) check(base string) error {
	page, err := url.Parse(s.VerificationURI)
	ours, baseErr := url.Parse(base)
	switch {
	case s.DeviceCode == "" || s.ExpiresIn <= 0 || s.ExpiresIn > 3600 || s.Interval < 0:
		return errors.New("the answer has no device code in it: the server may be older than `daypass login --device`: use --remote")
	case s.UserCode == "" || len(s.UserCode) > 32 || strings.Trim(s.UserCode, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "":
		return errors.New("the answer has a code that no one can type: check the endpoint")
	case err != nil || baseErr != nil || page.Scheme != ours.Scheme || !strings.EqualFold(page.Host, ours.Host) || page.User != nil:
		return fmt.Errorf("the page for the code is on another server, %.200q: give the server's own address as endpoint", s.VerificationURI)
	}
	return nil
}

// refusal is an error that the server answers.
type refusal struct {
	status        int
	code, message string
}

func (r *refusal) Error() string { return fmt.Sprintf("signing in: %.500s", r.message) }

// post sends a request with a DPoP proof, and decodes the answer.
func (c Config) post(ctx context.Context, key *ecdsa.PrivateKey, endpoint string, body map[string]string, into any) error {
	proof, err := c.proof(key, endpoint)
	if err != nil {
		return err
	}
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(data))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("DPoP", proof)
	response, err := c.HTTP.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		var problem struct {
			Code    string `json:"error"`
			Message string `json:"message"`
		}
		if json.Unmarshal(data, &problem) != nil || problem.Code == "" {
			if response.StatusCode == http.StatusNotFound {
				return noSignIn(strings.TrimRight(c.Endpoint, "/"))
			}
			return foreign(endpoint, response.Status)
		}
		return &refusal{response.StatusCode, problem.Code, problem.Message}
	}
	if json.Unmarshal(data, into) != nil {
		return foreign(endpoint, response.Status)
	}
	return nil
}

func foreign(endpoint, status string) error {
	return fmt.Errorf("%s: the answer (%s) did not come from a Daypass server: check the endpoint", endpoint, status)
}
