package signin

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// A browser is known by a random cookie, which is worth nothing by itself: it binds the contents
// of the pages to the browser that started the sign-in. The prefix of the cookie's name keeps
// other hosts of the domain, and plain HTTP, from setting it.
const (
	cookieBrowser = "daypass-browser"
	cookieRole    = "daypass-role"

	browserAge = 15 * 60
	roleAge    = 365 * 24 * 3600
)

func (e *exchange) cookieName(name string) string {
	if e.settings.secure() {
		return "__Host-" + name
	}
	return name
}

func (e *exchange) setCookie(name, value string, age int) {
	http.SetCookie(e.w, &http.Cookie{
		Name: e.cookieName(name), Value: value, Path: "/", MaxAge: age,
		Secure: e.settings.secure(), HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// cookie returns the value of a cookie that the browser sent exactly once.
func (e *exchange) cookie(name string) string {
	found := ""
	for _, c := range e.r.Cookies() {
		if c.Name != e.cookieName(name) {
			continue
		}
		if found != "" {
			return ""
		}
		found = c.Value
	}
	return found
}

// browser returns the hash of the browser's cookie. A browser without a cookie gets one.
func (e *exchange) browser() []byte {
	value := e.cookie(cookieBrowser)
	if len(value) != len(rand.Text()) || strings.Trim(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		value = rand.Text()
	}
	e.setCookie(cookieBrowser, value, browserAge)
	sum := sha256.Sum256([]byte(value))
	return sum[:]
}

// began reports whether this is the browser in which a request began.
func (e *exchange) began(q *request) bool {
	sum := sha256.Sum256([]byte(e.cookie(cookieBrowser)))
	return subtle.ConstantTimeCompare(sum[:], q.Browser) == 1
}

// ownPage reports whether a form was sent by one of our pages. Some browsers send neither
// header; for those, the form's content is the protection, because it is bound to the cookie.
func (e *exchange) ownPage() bool {
	site := e.r.Header.Get("Sec-Fetch-Site")
	origin := e.r.Header.Get("Origin")
	// With Referrer-Policy no-referrer, our own forms are sent with the Origin null.
	return (site == "" || site == "same-origin") && (origin == "" || origin == "null" && site == "same-origin" || origin == e.settings.URL)
}
