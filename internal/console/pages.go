package console

import (
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/signin"
)

// pages are the templates. html/template escapes what people, databases and policies contain, and
// signin.WritePage makes visible what would be invisible in it.
var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"join": func(list []string) string { return strings.Join(list, ", ") },
	"size": size,
	"mark": mark,
	"item": func(v view, path, name string) navItem { return navItem{path, name, v.Path == path} },
}).ParseFS(files, "pages/*.html"))

// view is the data that every page has.
type view struct {
	Title    string
	Path     string
	Session  string // what the person is called; empty: not signed in
	Role     string
	ARN      string
	Ends     when
	Token    string
	Sessions bool // the person may list sessions
	// SessionsName is what the page with the sessions is called.
	SessionsName string
	Data         any
}

// navItem is an entry of the navigation.
type navItem struct {
	Path, Name string
	Here       bool
}

// when is a time on a page. The page shows it in UTC, and relative to the time at which the page
// was made.
type when struct{ at, now time.Time }

func (w when) IsZero() bool { return w.at.IsZero() }

// ISO returns the time for the attribute datetime.
func (w when) ISO() string { return w.at.UTC().Format(time.RFC3339) }

// Text returns the time in UTC.
func (w when) Text() string { return w.at.UTC().Format("2006-01-02 15:04:05") + " UTC" }

// Short returns the time without the day and the seconds.
func (w when) Short() string { return w.at.UTC().Format("15:04") + " UTC" }

// Relative returns the time relative to that of the page, such as "3 min ago".
func (w when) Relative() string {
	d := w.at.Sub(w.now)
	past := d <= 0
	if past {
		d = -d
	}
	text := ""
	switch {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		text = strconv.Itoa(int(d/time.Second)) + " s"
	case d < time.Hour:
		text = strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 48*time.Hour:
		text = strconv.Itoa(int(d/time.Hour)) + " h"
		if minutes := int(d/time.Minute) % 60; minutes > 0 {
			text += " " + strconv.Itoa(minutes) + " min"
		}
	default:
		text = strconv.Itoa(int(d/(24*time.Hour))) + " days"
	}
	if past {
		return text + " ago"
	}
	return "in " + text
}

func (e *exchange) when(t time.Time) when { return when{t, e.now} }

// size writes a number of bytes for people.
func size(n uint64) string {
	switch {
	case n < 1000:
		return strconv.FormatUint(n, 10) + " B"
	case n < 1000*1000:
		return strconv.FormatUint(n/1000, 10) + " kB"
	case n < 1000*1000*1000:
		return strconv.FormatUint(n/1000/1000, 10) + " MB"
	}
	return strconv.FormatUint(n/1000/1000/1000, 10) + " GB"
}

// show answers with a page.
func (e *exchange) show(status int, name string, data any) {
	v := view{Title: e.title, Path: e.r.URL.Path, Data: data}
	if e.session != nil && e.who.ARN != "" {
		v.Session, v.Role, v.ARN = e.session.Person.Session, e.session.Role, e.who.ARN
		v.Ends, v.Token = e.when(e.session.NotAfter), e.session.FormToken()
		v.Sessions, v.SessionsName = e.who.Sessions, e.sessionsName()
	}
	signin.WritePage(e.w, status, pages, name, v)
}

// problem is the data of the page for errors.
type problem struct{ Problem, Next string }

// refuse answers with an error page.
func (e *exchange) refuse(status int, what, next string) {
	if e.title = "This did not work"; status == http.StatusNotFound {
		e.title = "Page not found"
	}
	e.show(status, "problem", problem{what, next})
}

// signedOut shows the page for people who are not signed in. why is optional.
func (e *exchange) signedOut(why string) {
	e.session = nil
	e.title = "Sign in to Daypass"
	page := e.r.URL.Path
	if page == prefix+"sign-out" {
		page = prefix
	}
	status := http.StatusForbidden
	if e.r.Method == http.MethodGet && why == "" || strings.HasPrefix(why, "You are signed out, in this") {
		status = http.StatusOK
	}
	e.show(status, "signedout", struct{ Why, Page string }{why, page})
}

// file serves the style sheet or the script.
func (e *exchange) file(name, kind string) {
	data, err := files.ReadFile("pages/" + name)
	if err != nil {
		panic("internal error: " + err.Error())
	}
	header := e.w.Header()
	header.Set("Content-Type", kind)
	header.Set("Cache-Control", "public, max-age=600")
	e.w.WriteHeader(http.StatusOK)
	_, _ = e.w.Write(data)
}

// caFile is the name under which the gateway's CA certificate is served and saved.
const caFile = "daypass-ca.crt"

// authority serves the certificate of the gateway's own CA.
func (e *exchange) authority() {
	data := e.config.Authority()
	if data == nil {
		e.refuse(http.StatusNotFound, "The gateway's certificate is not from a CA of its own.", "")
		return
	}
	header := e.w.Header()
	header.Set("Content-Type", "application/x-pem-file")
	header.Set("Content-Disposition", `attachment; filename="`+caFile+`"`)
	e.w.WriteHeader(http.StatusOK)
	_, _ = e.w.Write(data)
}
