package signin

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/sts"
	"github.com/daypass/daypass/internal/throttle"
)

// The sign-in of a device without a browser (RFC 8628):
//
//	device    sends  POST /device_authorization   its name: a device code, and a user code to show
//	device    sends  POST /token                  the device code, again and again
//	browser   opens  GET /device                  and goes to the provider, as with every sign-in
//	browser   sends  POST /sign-in/device         the user code, by a person who has signed in
//	we        show the device                     its name, its address, when it began
//	browser   sends  POST /sign-in/device/answer  allow or deny
//	device    sends  POST /token                  once more: tokens
//
// The device code is sealed and holds everything about the device, so strangers store nothing here.
// Device and person meet in one record of the registry, whose key is the user code. It is made when
// a person who has signed in sends the code; the device's next request adds the device; then the
// person's answer is added. Each step replaces the version that it has read, on any server, so the
// answer is for the device that was shown, and the tokens are handed out once.
const (
	pathDevice       = "/device"
	pathDeviceLook   = "/sign-in/device"
	pathDeviceAnswer = "/sign-in/device/answer"
)

const (
	// deviceLifetime is how long the code that a device shows is valid.
	deviceLifetime = 10 * time.Minute
	// pollInterval is the pause that a device makes between requests.
	pollInterval = 3 * time.Second
	// lookPatience is how long a page waits for the device's next request. lookPause is the pause
	// between reads of the record.
	lookPatience = 8 * time.Second
	lookPause    = 200 * time.Millisecond
)

// perDevice limits the requests with one device code. The AWS CLI sends two at once at the
// beginning.
var perDevice = throttle.Limit{Rate: 1, Burst: 4}

// perTyping limits the user codes that one person looks up. It bounds guesses, and records in the
// registry.
var perTyping = throttle.Limit{Rate: 1.0 / 30, Burst: 10}

// userLetters are the letters of user codes: no vowels, so that no words come out (RFC 8628,
// section 6.1).
const (
	userLetters = "BCDFGHJKLMNPQRSTVWXZ"
	userLength  = 8
)

// newUserCode returns a random user code, 34 bits.
func newUserCode() string {
	code := make([]byte, 0, userLength)
	for len(code) < userLength {
		var b [1]byte
		rand.Read(b[:]) // never fails
		if int(b[0]) < 256/len(userLetters)*len(userLetters) {
			code = append(code, userLetters[int(b[0])%len(userLetters)])
		}
	}
	return string(code)
}

// shown returns a user code as people see it.
func shown(code string) string {
	if len(code) != userLength {
		return ""
	}
	return code[:userLength/2] + "-" + code[userLength/2:]
}

// typed returns the user code that a person has typed, or "" if it cannot be one.
func typed(text string) string {
	if len(text) > 64 {
		return ""
	}
	code := strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' || r == '\t' {
			return -1
		}
		return r
	}, strings.ToUpper(text))
	if len(code) != userLength || strings.Trim(code, userLetters) != "" {
		return ""
	}
	return code
}

// deviceCode is the content of the code that a device sends until it gets an answer.
type deviceCode struct {
	ID       []byte `cbor:"1,keyasint"`
	UserCode string `cbor:"2,keyasint"`
	Client   []byte `cbor:"3,keyasint"`
	Name     string `cbor:"4,keyasint"`
	From     string `cbor:"5,keyasint"` // its address
	Since    int64  `cbor:"6,keyasint"`
	NotAfter int64  `cbor:"7,keyasint"`
	// Key is the thumbprint of the device's key, if the device asks the sign-in service
	// (logindevice.go). Without a key it is a client of SSO OIDC.
	Key []byte `cbor:"8,keyasint,omitempty"`
}

// meeting is the record in which a person and a device meet.
type meeting struct {
	Device   *deviceCode `cbor:"1,keyasint,omitempty"`
	Answer   answer      `cbor:"2,keyasint,omitempty"`
	Identity *identity   `cbor:"3,keyasint,omitempty"` // of the person who allowed it
	// Role is the IAM role that the person chose, for a device with a Key.
	Role   string `cbor:"4,keyasint,omitempty"`
	RoleID string `cbor:"5,keyasint,omitempty"`
}

type answer int

const (
	unanswered answer = iota
	allowed
	denied
	collected // allowed, and the device has its tokens
)

// changeMeeting changes the meeting of a user code. change gets nil if there is none, and returns nil to
// leave it as it is.
func (e *exchange) changeMeeting(ctx context.Context, userCode string, until time.Time, change func(*meeting) *meeting) error {
	var failed error
	err := e.config.Rendezvous(ctx, []byte(userCode), until, func(value []byte) []byte {
		failed = nil
		var m *meeting
		if value != nil {
			m = &meeting{}
			if unseal(e.keyring, e.now, forMeeting+userCode, string(value), m) != nil {
				m = nil // it was sealed by keys that are gone
			}
		}
		next := change(m)
		if next == nil {
			return nil
		}
		text, err := seal(e.keyring, e.now, forMeeting+userCode, next)
		if err != nil {
			failed = err
			return nil
		}
		return []byte(text)
	})
	return errors.Join(err, failed)
}

// startDevice is the operation StartDeviceAuthorization.
func (e *exchange) startDevice() {
	var in struct {
		ClientID     string `json:"clientId"`
		ClientSecret string `json:"clientSecret"`
		StartURL     string `json:"startUrl"`
	}
	if !e.readJSON(maxOIDC, &in) {
		return
	}
	client, problem := e.authenticate(in.ClientID, in.ClientSecret)
	if problem == nil && in.StartURL == "" {
		problem = invalidRequest("startUrl is required.")
	}
	if problem != nil {
		e.oidcError(problem)
		return
	}
	code := e.newDeviceCode(client.Name)
	code.Client = client.ID
	text, err := seal(e.keyring, e.now, forDeviceCode, code)
	if err != nil {
		e.oidcError(serverProblem("Signing in has failed because of an internal error.", err))
		return
	}
	page := e.settings.URL + pathDevice
	e.writeJSON(http.StatusOK, map[string]any{
		"deviceCode": text, "userCode": shown(code.UserCode), "verificationUri": page, "verificationUriComplete": page + "?user_code=" + shown(code.UserCode),
		"expiresIn": int(deviceLifetime / time.Second), "interval": int(pollInterval / time.Second),
	})
}

// newDeviceCode returns the code for a device that calls itself name.
func (e *exchange) newDeviceCode(name string) *deviceCode {
	return &deviceCode{ID: newID(), UserCode: newUserCode(), Name: name,
		From: e.config.Authority.Source(e.r).String(), Since: e.now.Unix(), NotAfter: e.now.Add(deviceLifetime).Unix()}
}

// poll answers a device that waits.
func (e *exchange) poll(client *registration, in *createTokenRequest) (map[string]any, *oidcProblem) {
	var code deviceCode
	if unseal(e.keyring, e.now, forDeviceCode, in.DeviceCode, &code) != nil || subtle.ConstantTimeCompare(code.Client, client.ID) != 1 {
		return nil, invalidGrant("The device code is not one of this server's, or was given to another client. " + signInAgain)
	}
	met, problem := e.allowedMeeting(&code)
	if problem != nil {
		return nil, problem
	}
	tokens, problem := e.grantAccess(client, &grant{ID: code.ID, Identity: *met.Identity}, in.GrantType)
	if problem == nil {
		problem = e.collect(&code)
	}
	if problem != nil {
		return nil, problem
	}
	return tokens, nil
}

// allowedMeeting returns the meeting of a device once a person has allowed it. The caller makes the
// tokens, and sends them if collect succeeds. So a device whose tokens cannot be made at the moment
// may try again.
func (e *exchange) allowedMeeting(code *deviceCode) (*meeting, *oidcProblem) {
	end := time.Unix(code.NotAfter, 0)
	if !e.now.Before(end) {
		return nil, expiredToken("The code has expired: no one allowed the request within 10 minutes. " + signInAgain)
	}
	if !e.polls.Take(string(code.ID), 0, e.now) {
		return nil, slowDown("Wait longer between requests.")
	}
	if !e.meetings.Enter(e.r.Context()) {
		return nil, slowDown("Too many devices wait at the moment.")
	}
	defer e.meetings.Leave()
	var before answer
	var met *meeting
	err := e.changeMeeting(e.r.Context(), code.UserCode, end, func(m *meeting) *meeting {
		before, met = unanswered, nil
		switch {
		case m == nil: // no one has typed the code yet
			return nil
		case m.Device == nil:
			return &meeting{Device: code}
		case subtle.ConstantTimeCompare(m.Device.ID, code.ID) != 1: // another device has the same user code
			return nil
		}
		before, met = m.Answer, m
		return nil
	})
	switch {
	case err != nil:
		return nil, meetingProblem(err)
	case before == denied:
		return nil, accessDenied("The request was denied in the browser.")
	case before == collected:
		return nil, e.collectedBefore()
	case before != allowed || met.Identity == nil:
		return nil, &oidcProblem{status: http.StatusBadRequest, exception: "AuthorizationPendingException", code: "authorization_pending",
			description: "No one has allowed the request in a browser yet."}
	}
	return met, nil
}

// collect records that a device gets its tokens. It succeeds once for a device code.
func (e *exchange) collect(code *deviceCode) *oidcProblem {
	first := false
	err := e.changeMeeting(e.r.Context(), code.UserCode, time.Unix(code.NotAfter, 0), func(m *meeting) *meeting {
		first = m != nil && m.Device != nil && m.Answer == allowed && subtle.ConstantTimeCompare(m.Device.ID, code.ID) == 1
		if !first {
			return nil
		}
		return &meeting{Device: m.Device, Answer: collected}
	})
	switch {
	case err != nil:
		return meetingProblem(err)
	case !first:
		return e.collectedBefore()
	}
	return nil
}

func (e *exchange) collectedBefore() *oidcProblem {
	e.config.Log.WarnContext(e.r.Context(), "signing in: a device code was sent after its tokens had been handed out", "client", e.config.Authority.Source(e.r))
	return invalidGrant("The device code has been used. " + signInAgain)
}

func meetingProblem(err error) *oidcProblem {
	return serverProblem("The registry cannot be read or written at the moment. Try again.", err)
}

// device is the page whose address a device shows. It goes to the provider first: only people
// who have signed in can look codes up.
func (e *exchange) device() {
	if e.elsewhere() {
		return
	}
	e.askForIdentity(&request{ForDevice: true, UserCode: typed(e.r.URL.Query().Get("user_code"))})
}

// devicePage is about a device that asks. Without Name it asks for the code.
type devicePage struct {
	Session, Issuer string
	Sealed, Action  string
	Code, Unknown   string
	Name            string
	From, Here      string
	Since           string
	Ago             int // minutes
	Hours           string
	Roles           []roleChoice
	Choose          bool // the person chooses one of Roles
}

// lookUp is the form with the code that a device shows.
func (e *exchange) lookUp() {
	given, who, ok := e.openForm(forDevice, "user_code")
	if !ok {
		return
	}
	text := e.r.PostForm.Get("user_code")
	given.Request.UserCode = typed(text)
	if given.Request.UserCode == "" {
		e.askForCode(given, who, text)
		return
	}
	e.meet(given, who)
}

// askForCode shows the form for the code. unknown, if not empty, is a code that no device has.
func (e *exchange) askForCode(given *consent, who *sts.Person, unknown string) {
	given.Device, given.Request.UserCode = nil, ""
	sealed, err := seal(e.keyring, e.now, forDevice, given)
	if err != nil {
		e.fail(err)
		return
	}
	status := http.StatusOK
	if unknown != "" {
		status = http.StatusNotFound
	}
	e.show(status, "device", devicePage{Session: who.Session, Issuer: e.settings.Issuer, Sealed: sealed, Action: pathDeviceLook, Unknown: clipped(unknown)})
}

func clipped(text string) string {
	if runes := []rune(text); len(runes) > 20 {
		return string(runes[:20])
	}
	return text
}

// meet waits for the device that shows the user code, and shows the device to the person.
func (e *exchange) meet(given *consent, who *sts.Person) {
	roles, _, ok := e.openRoles(who)
	if !ok {
		return
	}
	code := given.Request.UserCode
	if code == "" {
		e.askForCode(given, who, "")
		return
	}
	if !e.typed.Take(who.Session, 0, e.now) {
		e.refuse(http.StatusTooManyRequests, "You have tried too many codes.", "Wait a few minutes, then run the command again.")
		return
	}
	found, err := e.waitForDevice(code)
	switch {
	case err != nil:
		e.config.Log.ErrorContext(e.r.Context(), "signing in: looking for a device", "err", err)
		e.refuse(http.StatusServiceUnavailable, "The code cannot be looked up at the moment.", tryLater)
		return
	case found == nil:
		e.askForCode(given, who, shown(code))
		return
	}
	given.Device = found.ID
	sealed, err := seal(e.keyring, e.now, forDevice, given)
	if err != nil {
		e.fail(err)
		return
	}
	since := time.Unix(found.Since, 0).UTC()
	page := devicePage{Session: who.Session, Issuer: e.settings.Issuer, Sealed: sealed, Action: pathDeviceAnswer, Code: shown(code),
		Name: found.Name, From: found.From, Here: e.config.Authority.Source(e.r).String(),
		Since: since.Format("15:04:05 UTC"), Ago: int(e.now.Sub(since) / time.Minute), Hours: e.end(&given.Identity).UTC().Format("15:04 UTC")}
	page.Roles, page.Choose = e.choices(roles), len(found.Key) > 0
	e.show(http.StatusOK, "allow", page)
}

// waitForDevice makes the record for a user code and waits until the device has added itself. It
// returns nil if no device does so in time, or if the request was answered before.
func (e *exchange) waitForDevice(code string) (*deviceCode, error) {
	defer e.config.Authority.Attend(e.r)()
	if !e.lookers.Enter(e.r.Context()) {
		return nil, errors.New("too many pages wait for devices")
	}
	defer e.lookers.Leave()
	ctx, cancel := context.WithTimeout(e.r.Context(), lookPatience)
	defer cancel()
	pause := time.NewTicker(lookPause)
	defer pause.Stop()
	for {
		var found *meeting
		err := e.changeMeeting(ctx, code, e.now.Add(deviceLifetime), func(m *meeting) *meeting {
			if found = m; m == nil {
				return &meeting{}
			}
			return nil
		})
		switch {
		case ctx.Err() != nil:
			return nil, nil
		case err != nil:
			return nil, err
		case found != nil && found.Answer != unanswered:
			return nil, nil
		case found != nil && found.Device != nil:
			if e.now.Unix() >= found.Device.NotAfter {
				return nil, nil
			}
			return found.Device, nil
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-pause.C:
		}
	}
}

// answerDevice is the form with the person's answer.
func (e *exchange) answerDevice() {
	given, who, ok := e.openForm(forDevice, "answer")
	if !ok {
		return
	}
	said := map[string]answer{"allow": allowed, "deny": denied}[e.r.PostForm.Get("answer")]
	if said == unanswered || len(given.Device) == 0 {
		e.refuse(http.StatusBadRequest, "The form has not arrived as it was sent.", runAgain)
		return
	}
	var role Role // that the person chose; without a name if the page had none to choose
	if said == allowed && len(e.r.PostForm["role"]) > 0 {
		if role, ok = e.chosen(who); !ok {
			return
		}
	}
	done := false
	err := e.changeMeeting(e.r.Context(), given.Request.UserCode, e.now.Add(deviceLifetime), func(m *meeting) *meeting {
		done = m != nil && m.Device != nil && m.Answer == unanswered && e.now.Unix() < m.Device.NotAfter &&
			subtle.ConstantTimeCompare(m.Device.ID, given.Device) == 1 &&
			(said == denied || (len(m.Device.Key) > 0) == (role.Name != ""))
		if !done {
			return nil
		}
		next := &meeting{Device: m.Device, Answer: said}
		if said == allowed {
			next.Identity, next.Role, next.RoleID = &given.Identity, role.Name, role.ID
		}
		return next
	})
	switch {
	case err != nil:
		e.config.Log.ErrorContext(e.r.Context(), "signing in: answering a device", "err", err)
		e.refuse(http.StatusServiceUnavailable, "The answer cannot be stored at the moment.", tryLater)
	case !done:
		e.refuse(http.StatusConflict, "The request has expired, or was answered before.", runAgain)
	default:
		if role.Name != "" {
			e.setCookie(cookieRole, role.Name, roleAge)
		}
		e.show(http.StatusOK, "done", donePage{Session: who.Session, Allowed: said == allowed})
	}
}

type donePage struct {
	Session string
	Allowed bool
}
