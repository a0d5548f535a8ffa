package signin

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/sts"
)

// A session of the console is a cookie that the keyring has sealed. It holds the identity and the
// chosen IAM role, and no access keys: someone who steals the cookie can use the console's pages,
// but cannot sign calls. It ends
//
//   - when sign_in.duration has passed since the sign-in;
//   - when the browser has not used it for idleLifetime;
//   - when its principal or its own identifier is revoked, on all servers.

// idleLifetime is how long a console session lasts without a request. A sign-out revokes the
// session's identifier, and the registry remembers that for longer.
const idleLifetime = time.Hour

// renewAfter is the age from which a request renews the cookie.
const renewAfter = 5 * time.Minute

const (
	cookieConsole = "daypass-console"
	// Browsers limit a cookie to 4096 bytes, with its name and attributes.
	cookiePart  = 3800
	cookieParts = (maxSealed + cookiePart - 1) / cookiePart
)

// browserSession is the content of the cookie.
type browserSession struct {
	ID       string   `cbor:"1,keyasint"`
	Identity identity `cbor:"2,keyasint"`
	Role     string   `cbor:"3,keyasint"`
	RoleID   string   `cbor:"4,keyasint"`
	Token    []byte   `cbor:"5,keyasint"` // that forms have to send
	Renewed  int64    `cbor:"6,keyasint"`
}

// Session is a session of the console.
type Session struct {
	ID           string // can be revoked as a credential's
	Person       *sts.Person
	Role, RoleID string
	NotAfter     time.Time
	token        []byte
	renewed      *browserSession // the next cookie; nil: the present one is new enough
}

// FormToken returns the token that the forms of the session's pages have to send. A page of another
// site does not know it.
func (s *Session) FormToken() string { return base64.RawURLEncoding.EncodeToString(s.token) }

// IsFormToken reports whether a form was made for this session.
func (s *Session) IsFormToken(text string) bool {
	return subtle.ConstantTimeCompare([]byte(text), []byte(s.FormToken())) == 1
}

// enter starts a sign-in to the console.
func (e *exchange) enter() {
	if e.elsewhere() {
		return
	}
	page := e.r.URL.Query().Get("page")
	if !consolePage(page) {
		page = "/console/"
	}
	e.retry = openAgain
	e.askForIdentity(&request{Console: page})
}

const openAgain = "Open the console again and sign in."

// consolePage reports whether a path is one that a sign-in may lead to: a page of the console,
// without parameters, so that no link can fill in a form.
func consolePage(path string) bool {
	name, ok := strings.CutPrefix(path, "/console/")
	return ok && len(name) <= 32 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz-") == ""
}

// retryAs sets the advice that a failed sign-in shows, depending on what the request is for.
func (e *exchange) retryAs(q *request) {
	if q.Console != "" {
		e.retry = openAgain
	}
}

// enterConsole starts the session of a person who has chosen an IAM role.
func (e *exchange) enterConsole(given *consent, who *sts.Person, role *Role) {
	if !e.settings.Console || !consolePage(given.Request.Console) {
		e.refuse(http.StatusForbidden, "The configuration has changed meanwhile: there is no console any more.", askAdmin)
		return
	}
	if !e.people.Take(who.Session, 0, e.now) {
		e.refuse(http.StatusTooManyRequests, "You signed in too often at once.", tryLater)
		return
	}
	// The page with the roles works once, so that no one who goes back to it after a sign-out
	// is signed in again.
	switch err := e.config.UseOnce(e.r.Context(), []byte("console "+given.Request.Nonce), time.Unix(given.Request.NotAfter, 0)); {
	case errors.Is(err, ErrUsed):
		e.refuse(http.StatusForbidden, "This page has been used to sign in already.", e.retry)
		return
	case err != nil:
		e.fail(err)
		return
	}
	token := make([]byte, 16)
	rand.Read(token) // never fails
	s := &browserSession{ID: "console-" + rand.Text(), Identity: given.Identity, Role: role.Name, RoleID: role.ID, Token: token, Renewed: e.now.Unix()}
	if err := e.config.Authority.Enter(e.r, e.session(s, who)); err != nil {
		e.refused(err)
		return
	}
	if err := e.keep(s); err != nil {
		e.refuse(http.StatusForbidden, "Your account has more groups and claims than a browser keeps.",
			"Ask the person who runs the sign-in to send fewer claims.")
		return
	}
	e.setCookie(cookieRole, role.Name, roleAge)
	http.Redirect(e.w, e.r, given.Request.Console, http.StatusSeeOther)
}

func (e *exchange) session(s *browserSession, who *sts.Person) *Session {
	return &Session{ID: s.ID, Person: who, Role: s.Role, RoleID: s.RoleID, NotAfter: who.Since.Add(e.settings.Duration), token: s.Token}
}

// errCookie is the error for an identity that does not fit into cookies.
var errCookie = errors.New("the cookie is too long")

// keep sends the cookie, in as many parts as it needs, and deletes older parts.
func (e *exchange) keep(s *browserSession) error {
	text, err := seal(e.keyring, e.now, forConsole, s)
	if err != nil {
		return err
	}
	if len(text) > maxSealed {
		return errCookie
	}
	parts := slices.Collect(slices.Chunk([]byte(text), cookiePart))
	for i := range cookieParts {
		switch {
		case i < len(parts):
			e.setCookie(partName(i), string(parts[i]), int(idleLifetime/time.Second))
		case e.cookie(partName(i)) != "":
			e.setCookie(partName(i), "", -1)
		}
	}
	return nil
}

func partName(i int) string {
	if i == 0 {
		return cookieConsole
	}
	return cookieConsole + "-" + strconv.Itoa(i)
}

// Session returns the console session of a request's cookie, or nil if there is none or it has
// expired. The Authority decides whether it was revoked, and whether the IAM role is still open.
// After that, Renew renews the cookie.
func (h *Handler) Session(w http.ResponseWriter, r *http.Request) *Session {
	e := h.exchange(w, r)
	if e == nil || !e.settings.Console {
		return nil
	}
	var text strings.Builder
	for i := range cookieParts {
		part := e.cookie(partName(i))
		text.WriteString(part)
		if len(part) < cookiePart {
			break
		}
	}
	var s browserSession
	if text.Len() == 0 || unseal(e.keyring, e.now, forConsole, text.String(), &s) != nil {
		return nil
	}
	age := e.now.Sub(time.Unix(s.Renewed, 0))
	who, err := e.again(&s.Identity)
	if err != nil || age >= idleLifetime || len(s.Token) == 0 {
		return nil
	}
	found := e.session(&s, who)
	if !e.now.Before(found.NotAfter) {
		return nil
	}
	if age >= renewAfter {
		s.Renewed = e.now.Unix()
		found.renewed = &s
	}
	return found
}

// Renew renews the cookie of a session from time to time. The Authority has to have decided on
// the session in this request: a sign-out is remembered for less time than a renewed copy of the
// cookie would live.
func (h *Handler) Renew(w http.ResponseWriter, r *http.Request, s *Session) {
	if e := h.exchange(w, r); e != nil && s.renewed != nil {
		_ = e.keep(s.renewed) // without it the session ends sooner
	}
}

// Forget deletes the cookie of a console session.
func (h *Handler) Forget(w http.ResponseWriter, r *http.Request) {
	if e := h.exchange(w, r); e != nil {
		for i := range cookieParts {
			if i == 0 || e.cookie(partName(i)) != "" {
				e.setCookie(partName(i), "", -1)
			}
		}
	}
}

// OwnPage reports whether one of this server's pages sent a form.
func (h *Handler) OwnPage(r *http.Request) bool {
	e := h.exchange(nil, r)
	return e != nil && e.ownPage()
}

// Elsewhere redirects a browser that used another name of this machine, and reports whether it
// did. It refuses hosts that are not the one of sign_in.url.
func (h *Handler) Elsewhere(w http.ResponseWriter, r *http.Request) bool {
	e := h.exchange(w, r)
	if e == nil || e.elsewhere() {
		return true
	}
	if !strings.EqualFold(r.Host, e.settings.host()) {
		e.setHeaders()
		e.refuse(http.StatusMisdirectedRequest, "This server has no console at this address.", "Open "+e.settings.URL+"/console/ instead.")
		return true
	}
	return false
}
