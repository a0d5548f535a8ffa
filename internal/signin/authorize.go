package signin

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"golang.org/x/oauth2"

	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/sts"
	"github.com/daypass/daypass/internal/throttle"
)

const (
	// requestLifetime leaves the person time to sign in at the provider and to choose a role.
	requestLifetime = 15 * time.Minute
	// codeLifetime leaves the client time to exchange its code, and a person time to copy the
	// code to another machine.
	codeLifetime = 10 * time.Minute
	// maxPasted is the longest code that a person can paste. Terminals cut longer lines: POSIX
	// allows MAX_CANON to be as low as 255, and Linux takes 4095.
	maxPasted = 4000
)

const (
	runAgain = "Run the command again."
	askAdmin = "Ask the person who runs Daypass; the server's log has the reason."
	tryLater = "Try again in a minute. If it goes on, tell the person who runs Daypass."
)

// authorize starts a sign-in: it redirects the browser to the provider.
func (e *exchange) authorize() {
	if e.elsewhere() {
		return
	}
	q, err := parseRequest(e.r.URL.RawQuery, e.settings.URL)
	if err != nil {
		e.refuseLink(err)
		return
	}
	e.askForIdentity(q)
}

func (e *exchange) refuseLink(err error) {
	e.refuse(http.StatusBadRequest, "This link is not one of a tool that can sign in here: "+err.Error()+".",
		"Sign in with daypass login, aws login or aws sso login; do not follow a link that someone has sent you.")
}

// askForIdentity redirects the browser to the provider, with the request in the state.
func (e *exchange) askForIdentity(q *request) {
	var client *oauth2.Config
	if !e.askProvider(func() (err error) {
		client, _, err = e.client()
		return err
	}) {
		return
	}
	q.Browser, q.Nonce, q.Verifier = e.browser(), rand.Text(), oauth2.GenerateVerifier()
	q.NotAfter, q.Issuer = e.now.Add(requestLifetime).Unix(), e.settings.Issuer
	state, err := seal(e.keyring, e.now, forState, q)
	if err != nil {
		e.fail(err)
		return
	}
	http.Redirect(e.w, e.r, client.AuthCodeURL(state, oauth2.S256ChallengeOption(q.Verifier), oauth2.SetAuthURLParam("nonce", q.Nonce)), http.StatusSeeOther)
}

// elsewhere redirects a browser that used another name of this machine to the name that the
// provider redirects back to, because cookies are bound to the name.
func (e *exchange) elsewhere() bool {
	to, err := url.Parse(e.settings.URL)
	if err != nil || !isLoopback(to.Hostname()) || e.r.Host == to.Host {
		return false
	}
	if from, err := url.Parse("//" + e.r.Host); err != nil || !isLoopback(from.Hostname()) || from.Port() != to.Port() {
		return false
	}
	http.Redirect(e.w, e.r, e.settings.URL+e.r.URL.Path+"?"+e.r.URL.RawQuery, http.StatusSeeOther)
	return true
}

func isLoopback(host string) bool { return host == "localhost" || host == "127.0.0.1" || host == "::1" }

// askProvider calls ask while it holds one of the places for requests that wait for the
// provider. If ask fails, askProvider has already answered the browser.
func (e *exchange) askProvider(ask func() error) (ok bool) {
	address := admission.Network(e.config.Authority.Source(e.r))
	pass, verdict := e.asking.Enter(address, e.now)
	if verdict != throttle.Admitted {
		e.crowded()
		return false
	}
	defer e.asking.Leave(address, pass)
	defer e.config.Authority.Attend(e.r)()
	if !e.outside.Enter(e.r.Context()) {
		e.refuse(http.StatusServiceUnavailable, "Your company's sign-in does not answer at the moment.", tryLater)
		return false
	}
	defer e.outside.Leave()
	err := ask()
	switch {
	case err == nil:
		return true
	case errors.Is(err, sts.ErrSessionName):
		e.refuse(http.StatusForbidden, "Your company's sign-in does not say what to call you: "+err.Error()+".",
			"Ask the person who runs Daypass to set sign_in.session_name, or the people who run the sign-in to send the claim.")
	default:
		e.refuse(http.StatusBadGateway, "Your company's sign-in, "+e.settings.Issuer+", has not said who you are.", tryLater)
	}
	// The error can contain the provider's whole answer.
	e.config.Log.WarnContext(e.r.Context(), "signing in: asking the identity provider", "issuer", e.settings.Issuer, "err", fmt.Sprintf("%.500s", err.Error()))
	return false
}

// callback serves the address to which the provider sends the browser back.
func (e *exchange) callback() {
	values, err := url.ParseQuery(e.r.URL.RawQuery)
	if err != nil || len(e.r.URL.RawQuery) > 32<<10 {
		e.refuse(http.StatusBadRequest, "The answer of your company's sign-in is malformed.", e.retry)
		return
	}
	for name, list := range values {
		if len(list) != 1 {
			e.refuse(http.StatusBadRequest, "The answer of your company's sign-in has "+quoted(name)+" twice.", e.retry)
			return
		}
	}
	var q request
	err = unseal(e.keyring, e.now, forState, values.Get("state"), &q)
	e.retryAs(&q)
	switch {
	case err != nil || !e.began(&q):
		e.refuse(http.StatusBadRequest, "This sign-in was not begun in this browser.", e.retry+" If a link has brought you here, someone else may be trying to sign in as you.")
		return
	case e.now.Unix() >= q.NotAfter:
		e.refuse(http.StatusBadRequest, "This sign-in took longer than 15 minutes.", e.retry)
		return
	}
	if q.Issuer != e.settings.Issuer { // whose code must not be sent to another provider
		e.refuse(http.StatusBadRequest, "The configuration has changed meanwhile.", e.retry)
		return
	}
	if issuer := values.Get("iss"); issuer != "" && issuer != e.settings.Issuer {
		e.refuse(http.StatusBadRequest, "The answer is of another sign-in service than your company's.", askAdmin)
		return
	}
	if problem := values.Get("error"); problem != "" {
		e.refuse(http.StatusForbidden, "Your company's sign-in has refused: "+quoted(problem)+" "+quoted(values.Get("error_description"))+".",
			"Sign in again, or ask the people who run the sign-in.")
		return
	}
	var who *sts.Person
	if e.askProvider(func() error {
		token, err := e.idToken(values.Get("code"), q.Verifier)
		if err != nil {
			return err
		}
		who, err = e.person(token, &q)
		return err
	}) {
		if q.ForDevice {
			e.meet(&consent{Request: q, Identity: identityOf(who)}, who)
			return
		}
		e.choose(&q, who)
	}
}

// person verifies the ID token: OpenID Connect Core 1.0, section 3.1.3.7.
func (e *exchange) person(token string, q *request) (*sts.Person, error) {
	found, err := e.config.Authority.Verify(e.r, token)
	if err != nil {
		return nil, err
	}
	nonce, _ := found.Claim("nonce")
	switch {
	case found.Provider.Issuer != e.settings.Issuer:
		return nil, errors.New("the ID token comes from another provider than sign_in.issuer")
	case subtle.ConstantTimeCompare([]byte(nonce), []byte(q.Nonce)) != 1:
		return nil, errors.New("the ID token has another nonce")
	case !slices.Contains(found.Audience, e.settings.ClientID):
		return nil, errors.New("the ID token is not for sign_in.client_id")
	case len(found.Payload) > maxClaims:
		return nil, errors.New("the ID token is too long")
	}
	session, err := found.SessionName(e.settings.SessionClaim)
	if err != nil {
		return nil, err
	}
	return &sts.Person{Identity: found, Session: session, Since: e.now.UTC().Truncate(time.Second)}, nil
}

// identityOf returns the identity of a person, which the pages pass from one to the next.
func identityOf(who *sts.Person) identity {
	return identity{deflate(who.Identity.Payload), who.Session, who.Since.Unix()}
}

// openRoles returns the roles that let a person in. If there is none, it has already told the
// browser why.
func (e *exchange) openRoles(who *sts.Person) ([]Role, choicePage, bool) {
	roles, err := e.config.Authority.Roles(e.r, who)
	if err != nil {
		e.refused(err)
		return nil, choicePage{}, false
	}
	page := choicePage{Session: who.Session, Issuer: e.settings.Issuer}
	var open []Role
	for _, role := range roles {
		if role.Open {
			open = append(open, role)
		} else {
			page.Closed = append(page.Closed, closedRole{role.Name, role.Unmet})
		}
	}
	if len(open) == 0 {
		page.Claims = claimsOf(who.Identity)
		e.show(http.StatusForbidden, "none", page)
		return nil, choicePage{}, false
	}
	return open, page, true
}

// choose shows the page with the roles that the person may have.
func (e *exchange) choose(q *request, who *sts.Person) {
	roles, page, ok := e.openRoles(who)
	if !ok {
		return
	}
	page.Remote, page.Console, page.Action = q.Remote, q.Console != "", pathContinue
	if q.Client != nil {
		page.Client = q.Client.Name
	}
	page.Roles = e.choices(roles)
	var err error
	page.Sealed, err = seal(e.keyring, e.now, forConsent, consent{Request: *q, Identity: identityOf(who)})
	if err != nil {
		e.fail(err)
		return
	}
	if !q.Remote && q.Console == "" {
		// Some browsers also apply form-action to the redirect that answers the form.
		to, _ := url.Parse(q.Redirect)
		e.w.Header().Set("Content-Security-Policy", contentPolicy("'self' http://"+to.Host))
	}
	if q.Client != nil {
		e.show(http.StatusOK, "client", page)
		return
	}
	e.show(http.StatusOK, "choose", page)
}

// choices returns the entries of a page from which the person chooses a role: the one of the last
// time is chosen, or else the first.
func (e *exchange) choices(roles []Role) []roleChoice {
	remembered := e.cookie(cookieRole)
	list := make([]roleChoice, len(roles))
	found := 0
	for i, role := range roles {
		if role.Name == remembered {
			found = i
		}
		list[i].Name = role.Name
	}
	list[found].Chosen = true
	return list
}

// chosen returns the role that the form names, if it is open to the person. Otherwise it has
// already answered the browser.
func (e *exchange) chosen(who *sts.Person) (Role, bool) {
	if len(e.r.PostForm["role"]) != 1 {
		e.refuse(http.StatusBadRequest, "The form has not arrived as it was sent.", e.retry)
		return Role{}, false
	}
	roles, err := e.config.Authority.Roles(e.r, who)
	if err != nil {
		e.refused(err)
		return Role{}, false
	}
	at := slices.IndexFunc(roles, func(r Role) bool { return r.Open && r.Name == e.r.PostForm.Get("role") })
	if at < 0 {
		e.refuse(http.StatusForbidden, "The IAM role that was chosen is not open to you.", e.retry)
		return Role{}, false
	}
	return roles[at], true
}

// openForm returns the sealed consent in the form of a page of ours, and the person. Otherwise it
// has already answered the browser.
func (e *exchange) openForm(step string, fields ...string) (*consent, *sts.Person, bool) {
	if !e.ownPage() {
		e.refuse(http.StatusForbidden, "This form was sent by a page of another site.", e.retry)
		return nil, nil, false
	}
	body, ok := e.receive(2*maxSealed, "The form has not arrived as it was sent.", e.retry)
	if !ok {
		return nil, nil, false
	}
	e.r.Body = io.NopCloser(bytes.NewReader(body))
	err := e.r.ParseForm()
	for _, field := range append(fields, "sealed") {
		if err != nil || len(e.r.PostForm[field]) != 1 {
			e.refuse(http.StatusBadRequest, "The form has not arrived as it was sent.", e.retry)
			return nil, nil, false
		}
	}
	var given consent
	err = unseal(e.keyring, e.now, step, e.r.PostForm.Get("sealed"), &given)
	e.retryAs(&given.Request)
	switch {
	case err != nil || !e.began(&given.Request):
		e.refuse(http.StatusBadRequest, "This sign-in was not begun in this browser.", e.retry)
		return nil, nil, false
	case e.now.Unix() >= given.Request.NotAfter:
		e.refuse(http.StatusBadRequest, "This sign-in took longer than 15 minutes.", e.retry)
		return nil, nil, false
	}
	who, err := e.again(&given.Identity)
	if err != nil {
		e.refuse(http.StatusForbidden, "The configuration has changed meanwhile.", e.retry)
		return nil, nil, false
	}
	return &given, who, true
}

// proceed makes the code for the chosen role, or for a client of SSO OIDC, which chooses the
// role later.
func (e *exchange) proceed() {
	given, who, ok := e.openForm(forConsent)
	if !ok {
		return
	}
	q := &given.Request
	if q.Client != nil {
		text, err := e.clientCode(given)
		if err != nil {
			e.fail(err)
			return
		}
		e.sendCode(q, text)
		return
	}
	role, ok := e.chosen(who)
	if !ok {
		return
	}
	if q.Console != "" {
		e.enterConsole(given, who, &role)
		return
	}
	text, err := seal(e.keyring, e.now, forCode, code{ID: newID(), Identity: given.Identity, Role: role.Name, RoleID: role.ID,
		ClientID: q.clientID(), Redirect: q.Redirect, Challenge: q.Challenge, NotAfter: e.now.Add(codeLifetime).Unix()})
	if err != nil {
		e.fail(err)
		return
	}
	e.setCookie(cookieRole, role.Name, roleAge)
	if !q.Remote {
		e.sendCode(q, text)
		return
	}
	pasted := base64.StdEncoding.EncodeToString([]byte(answerOf(q, text)))
	if len(pasted) > maxPasted {
		e.refuse(http.StatusForbidden, "The code would be longer than a terminal takes, because your account has so many groups or claims.",
			"Sign in on a machine with a browser, or ask the person who runs the sign-in to send fewer claims.")
		return
	}
	e.show(http.StatusOK, "code", codePage{Session: who.Session, Role: role.Name, Code: pasted})
}

func answerOf(q *request, text string) string {
	return url.Values{"code": {text}, "state": {q.State}}.Encode()
}

// sendCode sends a code to the client, through the browser.
func (e *exchange) sendCode(q *request, text string) {
	http.Redirect(e.w, e.r, q.Redirect+"?"+answerOf(q, text), http.StatusSeeOther)
}

// newID returns the id of a code.
func newID() []byte {
	id := make([]byte, 16)
	rand.Read(id) // never fails
	return id
}

// again returns the person of a sealed identity, if that identity's provider is still the
// configured one for sign-ins.
func (e *exchange) again(of *identity) (*sts.Person, error) {
	payload, err := inflate(of.Claims)
	if err != nil {
		return nil, err
	}
	found, err := sts.Reread(e.directory, payload)
	if err != nil {
		return nil, err
	}
	if found.Provider.Issuer != e.settings.Issuer || !slices.Contains(found.Audience, e.settings.ClientID) {
		return nil, errors.New("sign_in.issuer or sign_in.client_id was changed after this sign-in began")
	}
	return &sts.Person{Identity: found, Session: of.Session, Since: time.Unix(of.Since, 0).UTC()}, nil
}

// confirmation answers the address that clients on other machines send as redirect_uri. The
// server never redirects a browser to it.
func (e *exchange) confirmation() {
	e.refuse(http.StatusNotFound, "There is no code here.", e.retry)
}

// refused answers a refusal of the Authority with a page.
func (e *exchange) refused(err error) {
	refusal, ok := errors.AsType[*Refusal](err)
	if !ok {
		e.fail(err)
		return
	}
	status, next := http.StatusForbidden, askAdmin
	switch refusal.Kind {
	case TooMany:
		status, next = http.StatusTooManyRequests, tryLater
	case Unavailable:
		status, next = http.StatusServiceUnavailable, tryLater
	}
	e.refuse(status, refusal.Message, next)
}

// fail answers an internal error, one that should never happen.
func (e *exchange) fail(err error) {
	e.config.Log.ErrorContext(e.r.Context(), "signing in", "err", err)
	e.refuse(http.StatusInternalServerError, "Signing in has failed because of an internal error.", askAdmin)
}
