package signin

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"github.com/daypass/daypass/internal/quote"
	"github.com/daypass/daypass/internal/sts"
)

//go:embed pages
var files embed.FS

// pages are the templates. html/template escapes what people and providers write, and WritePage
// makes visible what would be invisible in it.
var pages = template.Must(template.ParseFS(files, "pages/*.html"))

type problemPage struct{ Problem, Next string }

type choicePage struct {
	Session, Issuer string
	Remote, Console bool
	Client          string // what a client of SSO OIDC calls itself
	Roles           []roleChoice
	Closed          []closedRole
	Claims          []claimRow // when no role is open
	Action, Sealed  string
}

type roleChoice struct {
	Name   string
	Chosen bool
}

type closedRole struct {
	Name  string
	Unmet []string
}

type claimRow struct{ Name, Value string }

type codePage struct{ Session, Role, Code string }

// claimsOf returns the claims about the person, without those of the protocol itself.
func claimsOf(w *sts.WebIdentity) []claimRow {
	var rows []claimRow
	for _, c := range w.Claims {
		switch c.Name {
		case "iss", "iat", "exp", "nbf", "nonce", "jti", "at_hash", "c_hash", "s_hash", "sid", "auth_time", "oaud":
			continue
		}
		rows = append(rows, claimRow{c.Name, strings.Join(c.Values, ", ")})
	}
	return rows
}

// show answers with a page.
func (e *exchange) show(status int, name string, data any) {
	WritePage(e.w, status, pages, name, data)
}

// WritePage answers with a page that a template makes, with what would be invisible in it made
// visible.
func WritePage(w http.ResponseWriter, status int, templates *template.Template, name string, data any) {
	var body bytes.Buffer
	if err := templates.ExecuteTemplate(&body, name+".html", data); err != nil {
		panic("internal error: " + err.Error())
	}
	page := quote.Page(body.Bytes())
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Length", strconv.Itoa(len(page)))
	w.WriteHeader(status)
	_, _ = w.Write(page) // a browser that is gone needs no answer
}

// style is the one file that the pages load.
func (e *exchange) style() {
	data, err := files.ReadFile("pages/style.css")
	if err != nil {
		panic("internal error: " + err.Error())
	}
	header := e.w.Header()
	header.Set("Content-Type", "text/css; charset=utf-8")
	header.Set("Cache-Control", "public, max-age=3600")
	e.w.WriteHeader(http.StatusOK)
	_, _ = e.w.Write(data)
}
