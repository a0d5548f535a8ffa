// Package devidp is an OpenID Connect provider for trying things out: `daypass dev` and tests
// sign people in with it. Its people have no passwords, so anyone who can reach it can sign in
// as any of them. The protocol is implemented by github.com/zitadel/oidc; this package adds the
// storage, in memory, and the page on which visitors choose a person.
package devidp

import (
	"context"
	"crypto/rand"
	"errors"
	"html/template"
	"net/http"
	"slices"

	"github.com/zitadel/oidc/v3/pkg/op"
)

// Person is someone who has an account.
type Person struct {
	Subject, Name, Email string
	Groups               []string
}

// Config configures a Provider.
type Config struct {
	Issuer       string // its own URL, http on loopback
	ClientID     string
	ClientSecret string // empty: the client has none and has to use PKCE
	RedirectURI  string
	// People returns those who have an account. They may change.
	People func() []Person
}

// New makes a provider. It is safe for concurrent use.
func New(config Config) (http.Handler, error) {
	s, err := newStorage(config)
	if err != nil {
		return nil, err
	}
	var key [32]byte
	rand.Read(key[:]) // never fails
	provider, err := op.NewProvider(&op.Config{CryptoKey: key, CodeMethodS256: true, AuthMethodPost: true}, s,
		op.StaticIssuer(config.Issuer), op.WithAllowInsecure())
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+loginPath, s.showPeople)
	mux.HandleFunc("POST "+loginPath, func(w http.ResponseWriter, r *http.Request) {
		id, err := s.choose(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		ctx := op.ContextWithIssuer(r.Context(), config.Issuer)
		http.Redirect(w, r, op.AuthCallbackURL(provider)(ctx, id), http.StatusSeeOther)
	})
	mux.Handle("/", provider)
	return mux, nil
}

const loginPath = "/login"

var page = template.Must(template.New("login").Parse(`<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Example company: who are you?</title>
<style>body{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:2rem auto;padding:0 1rem}
button{display:block;width:100%;margin:.5rem 0;padding:.75rem;font:inherit;text-align:left}</style></head>
<body><h1>Example company</h1>
<p>This is the demo's identity provider. Nobody here has a password: choose who you are.</p>
<form method="post"><input type="hidden" name="id" value="{{.ID}}">
{{range .People}}<button name="person" value="{{.Subject}}">{{.Name}} ({{range $i, $g := .Groups}}{{if $i}}, {{end}}{{$g}}{{end}})</button>
{{end}}</form></body></html>
`))

func (s *storage) showPeople(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_ = page.Execute(w, struct {
		ID     string
		People []Person
	}{r.URL.Query().Get("id"), s.config.People()}) // to a browser that may be gone
}

// choose records who a visitor says they are.
func (s *storage) choose(r *http.Request) (id string, err error) {
	id, subject := r.PostFormValue("id"), r.PostFormValue("person")
	if !slices.ContainsFunc(s.config.People(), func(p Person) bool { return p.Subject == subject }) {
		return "", errors.New("there is no such person")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	request, ok := s.requests[id]
	if !ok {
		return "", errors.New("this sign-in is over: begin again")
	}
	request.subject = subject
	return id, nil
}

var _ interface {
	op.Storage
	op.CanSetUserinfoFromRequest
} = (*storage)(nil)

// Health always returns nil: nothing here can fail.
func (s *storage) Health(context.Context) error { return nil }
