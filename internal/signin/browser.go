package signin

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// A browser is known by a random cookie, which is worth nothing by itself: it binds what
// the pages carry to the browser that began. The name's prefix keeps other hosts of the
// domain, and plain HTTP, from setting it.
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

// cookie is the value of a cookie that is there once.
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

// browser is the hash of the browser's cookie, which it gets if it has none.
func (e *exchange) browser() []byte {
	value := e.cookie(cookieBrowser)
	if len(value) != len(rand.Text()) || strings.Trim(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		value = rand.Text()
	}
	e.setCookie(cookieBrowser, value, browserAge)
	sum := sha256.Sum256([]byte(value))
	return sum[:]
}

// began reports whether this is the browser that a request began in.
func (e *exchange) began(q *request) bool {
	sum := sha256.Sum256([]byte(e.cookie(cookieBrowser)))
	return subtle.ConstantTimeCompare(sum[:], q.Browser) == 1
}

// ownPage reports whether a form was sent by a page of ours. Browsers that send neither
// header are stopped by what is in the form, which is bound to the cookie.
func (e *exchange) ownPage() bool {
	site := e.r.Header.Get("Sec-Fetch-Site")
	origin := e.r.Header.Get("Origin")
	// With Referrer-Policy no-referrer, Origin is null in a form of our own.
	return (site == "" || site == "same-origin") && (origin == "" || origin == "null" && site == "same-origin" || origin == e.settings.URL)
}
