// Package console serves web pages for people at the API's address (docs/people.md). They show
// what a person may ask for, a credential with the connection string of each tool, who is logged
// on, why a call was refused, a simulator for policies, and the person's own lines of the audit
// log. There is no SQL editor.
//
// The package decides nothing. A person signs in with a browser (package signin) and gets a
// cookie that names the person and the IAM role. Every act is the API's call of the same name
// (api.Handler.ConsoleCall), with its authorization, its limits and its audit line.
//
// The server renders the pages, and they work without a script; the one script adds a countdown
// and copy buttons. The browser loads nothing from other sites. Other sites are kept out by:
//
//   - the cookie: HttpOnly, SameSite=Lax, and with a name that binds it to this host and to TLS;
//   - forms: accepted only by POST and from a page of ours (Origin and Sec-Fetch-Site), with a
//     token that is also in the sealed cookie;
//   - the host name: a request for another host than that of sign_in.url is refused (DNS rebinding);
//   - headers: other sites cannot frame, cache or read a page. No parameter redirects elsewhere.
package console

import (
	"embed"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/admission"
	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/signin"
	"github.com/daypass/daypass/internal/throttle"
)

// Config configures a Handler. All fields are required except Server.
type Config struct {
	// Enabled reports whether the configuration in force has a console.
	Enabled   func() bool
	Directory func() *directory.Directory
	API       *api.Handler
	SignIn    *signin.Handler
	Audit     *audit.Writer
	// Authority returns the certificate of the gateway's own CA in PEM, or nil if the operator
	// provides the gateway's certificate.
	Authority func() []byte
	// Server is the name of this server, if there are several.
	Server string
	Log    *slog.Logger
	Now    func() time.Time
}

// Handler answers the console's requests. Safe for concurrent use.
type Handler struct {
	config    Config
	addresses *throttle.Keys[netip.Addr]
	reading   *throttle.Gate         // requests that read the audit log
	readers   *throttle.Keys[string] // the same, by principal
}

// perAddress limits the requests of one address, to the same numbers as for sign-ins.
var perAddress = throttle.Limit{Rate: 20, Burst: 600, Concurrent: 64}

// perReader limits how much one person reads of the audit log. A page may read megabytes, so that
// pages without end would take a processor from everyone else. Concurrent is less than places: if
// one person had them all, others would wait for reads to end, which on a busy machine takes longer
// than the queue lets them wait.
var perReader = throttle.Limit{Rate: 0.5, Burst: 20, Concurrent: 2}

// places is how many requests read the audit log at once.
const places = 3

// maxForm and maxQuery bound the bytes of a form and of a query string.
const (
	maxForm  = 256 << 10
	maxQuery = 8 << 10
)

// New makes a Handler.
func New(config Config) *Handler {
	return &Handler{config: config, addresses: throttle.NewKeys[netip.Addr](perAddress, 1<<16),
		reading: throttle.NewGate(places, 16, 5*time.Second), readers: throttle.NewKeys[string](perReader, 1<<12)}
}

// OfSession converts a session of package signin to the API's type.
func OfSession(s *signin.Session) *api.ConsoleSession {
	return &api.ConsoleSession{ID: s.ID, Person: s.Person, Role: s.Role, RoleID: s.RoleID, NotAfter: s.NotAfter}
}

const prefix = "/console/"

// route is one page.
type route struct {
	title     string
	get, post func(*exchange)
}

// routes returns the pages, by path.
func routes() map[string]route {
	return map[string]route{
		prefix:                {title: "What you may ask for", get: (*exchange).offers},
		prefix + "credential": {title: "Get a credential", get: (*exchange).askCredential, post: (*exchange).credential},
		prefix + "sessions":   {title: "Who is on", get: (*exchange).sessions},
		prefix + "end":        {title: "End this session?", get: (*exchange).askEnd, post: (*exchange).end},
		prefix + "revoke":     {title: "Revoke credentials?", get: (*exchange).askRevoke, post: (*exchange).revoke},
		prefix + "refusals":   {title: "Refused calls and logons", get: (*exchange).refusals},
		prefix + "explain":    {title: "Explain a call", get: (*exchange).explain},
		prefix + "simulate":   {title: "Policy simulator", get: (*exchange).askSimulation, post: (*exchange).simulate},
		prefix + "audit":      {title: "My activity", get: (*exchange).activity},
		prefix + "sign-out":   {title: "Sign out", get: (*exchange).askSignOut, post: (*exchange).signOut},
	}
}

// Before serves the paths of the console, and passes other requests to next.
func (h *Handler) Before(next http.Handler) http.Handler {
	pages := routes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if path != strings.TrimSuffix(prefix, "/") && !strings.HasPrefix(path, prefix) || !h.config.Enabled() {
			next.ServeHTTP(w, r)
			return
		}
		e := &exchange{Handler: h, w: w, r: r, now: h.config.Now()}
		e.setHeaders()
		if h.config.SignIn.Elsewhere(w, r) {
			return
		}
		address := admission.Network(h.config.API.Source(r))
		pass, verdict := h.addresses.Enter(address, e.now)
		if verdict != throttle.Admitted {
			e.refuse(http.StatusTooManyRequests, "There are too many requests from your network at once.", "Wait a minute, then try again.")
			return
		}
		defer h.addresses.Leave(address, pass)
		e.serve(pages)
	})
}

// exchange is one request in progress.
type exchange struct {
	*Handler
	w       http.ResponseWriter
	r       *http.Request
	now     time.Time
	title   string
	session *signin.Session
	who     api.ConsoleRights
	form    url.Values
}

func (e *exchange) serve(pages map[string]route) {
	switch e.r.URL.Path {
	case strings.TrimSuffix(prefix, "/"):
		http.Redirect(e.w, e.r, prefix, http.StatusSeeOther)
		return
	case prefix + "console.css":
		e.file("console.css", "text/css; charset=utf-8")
		return
	case prefix + "console.js":
		e.file("console.js", "text/javascript; charset=utf-8")
		return
	case prefix + caFile:
		e.authority()
		return
	}
	page, ok := pages[e.r.URL.Path]
	if !ok {
		e.refuse(http.StatusNotFound, "There is no such page.", "")
		return
	}
	e.title = page.title
	answer := page.get
	switch {
	case e.r.Method == http.MethodPost && page.post != nil:
		answer = page.post
	case e.r.Method != http.MethodGet || page.get == nil:
		allow := "GET"
		if page.post != nil {
			allow = "GET, POST"
		}
		e.w.Header().Set("Allow", allow)
		e.refuse(http.StatusMethodNotAllowed, "This page does not take "+clip(e.r.Method, 20)+" requests.", "")
		return
	}
	if len(e.r.URL.RawQuery) > maxQuery {
		e.refuse(http.StatusRequestURITooLong, "The address is too long.", "")
		return
	}
	if !e.openSession() {
		return
	}
	if e.r.Method == http.MethodPost && !e.readForm() {
		return
	}
	if e.r.Method == http.MethodGet {
		e.form = e.r.URL.Query()
	}
	var err error
	if e.who, err = e.config.API.ConsoleRights(e.r, OfSession(e.session)); err != nil {
		e.failed(err)
		return
	}
	e.config.SignIn.Renew(e.w, e.r, e.session)
	answer(e)
}

// openSession opens the session of the cookie. Without one it answers with the sign-in page, and
// returns false.
func (e *exchange) openSession() bool {
	e.session = e.config.SignIn.Session(e.w, e.r)
	if e.session == nil {
		e.signedOut("")
	}
	return e.session != nil
}

// readForm reads a form that one of our pages sent. It answers any other request with an error,
// and returns false. A form may take half a minute to arrive, so the time is taken and the session
// is opened anew after that.
func (e *exchange) readForm() bool {
	e.r.Body = http.MaxBytesReader(e.w, e.r.Body, maxForm)
	if !e.config.SignIn.OwnPage(e.r) {
		e.refuse(http.StatusForbidden, "This form was sent by a page of another site.", "Nothing has been done. Open the page here and send it again, if that is what you want.")
		return false
	}
	err := e.r.ParseForm()
	e.now = e.config.Now()
	if !e.openSession() {
		return false
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		e.refuse(http.StatusRequestEntityTooLarge, "The form is too large.", "")
		return false
	} else if err != nil {
		e.refuse(http.StatusBadRequest, "The form has not arrived as it was sent.", "")
		return false
	}
	e.form = e.r.PostForm
	if len(e.form["token"]) != 1 || !e.session.IsFormToken(e.form.Get("token")) {
		e.refuse(http.StatusForbidden, "This form was made for another sign-in.", "Nothing has been done. Open the page again and send it from there.")
		return false
	}
	return true
}

// text returns a field of the form, or a parameter of the URL. It trims the spaces that come with
// pasted text.
func (e *exchange) text(name string) string { return strings.TrimSpace(e.form.Get(name)) }

// setHeaders sets the headers of every answer.
func (e *exchange) setHeaders() {
	header := e.w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; "+
		"frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
	header.Set("X-Frame-Options", "DENY")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
}

// failed answers the request with a page about an error of the API.
func (e *exchange) failed(err error) {
	var answer *awsquery.Error
	switch {
	case errors.Is(err, api.ErrConsoleEnded), errors.Is(err, api.ErrConsoleClosed):
		e.config.SignIn.Forget(e.w, e.r)
		e.signedOut(err.(*awsquery.Error).Message)
	case errors.As(err, &answer):
		e.refuse(answer.Status, answer.Message, "")
	default:
		e.config.Log.ErrorContext(e.r.Context(), "console", "page", e.r.URL.Path, "err", err)
		e.refuse(http.StatusInternalServerError, "The page could not be made because of an internal error.", "The server's log has the reason.")
	}
}

// denied returns the API's refusal, for the page to show. If err is something else, or the
// session has ended, denied answers the request itself and ok is false.
func (e *exchange) denied(err error) (answer *awsquery.Error, ok bool) {
	if err == nil {
		return nil, true
	}
	if errors.Is(err, api.ErrConsoleEnded) || errors.Is(err, api.ErrConsoleClosed) || !errors.As(err, &answer) {
		e.failed(err)
		return nil, false
	}
	return answer, true
}

// askSignOut shows the sign-out button to a person who opens the URL directly.
func (e *exchange) askSignOut() { e.show(http.StatusOK, "signout", nil) }

// signOut ends the session on all servers.
func (e *exchange) signOut() {
	err := e.config.API.ConsoleLeave(e.r, OfSession(e.session))
	e.config.SignIn.Forget(e.w, e.r)
	if err != nil {
		e.refuse(http.StatusServiceUnavailable, "The cookie is deleted from this browser, but the sign-out could not be recorded: a copy of the cookie would still work.",
			"If someone may have copied it, ask an administrator to revoke your sign-ins.")
		return
	}
	e.signedOut("You are signed out, in this browser and on all servers.")
}

//go:embed pages
var files embed.FS

func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
