package devserver

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/daypass/daypass/internal/devidp"
	"github.com/daypass/daypass/internal/server"
)

// examplePeople are the people of the demo. They have no passwords, so anyone who can reach the
// demo can sign in as any of them.
var examplePeople = []devidp.Person{
	{Subject: "ana", Name: "Ana Alvarez", Email: "ana@example.com", Groups: []string{"analysts", "engineers"}},
	{Subject: "bob", Name: "Bob Brown", Email: "bob@example.com", Groups: []string{"engineers"}},
}

func (d *dev) providerURL() string { return "http://" + d.provider.Addr().String() }

// serveProvider serves the identity provider until the function that it returns is called.
func (d *dev) serveProvider() (stop func(), err error) {
	handler, err := devidp.New(devidp.Config{
		Issuer:      d.providerURL(),
		ClientID:    exampleClient,
		RedirectURI: d.endpointURL() + "/sign-in/callback",
		People:      func() []devidp.Person { return examplePeople },
	})
	if err != nil {
		d.provider.Close()
		return nil, fmt.Errorf("starting the identity provider: %w", err)
	}
	provider := &http.Server{
		Handler: handler, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(server.NewLog(d.opts.Stderr, server.LogOptions{Level: slog.LevelWarn}).Handler(), slog.LevelDebug),
	}
	go func() { _ = provider.Serve(d.provider) }() // it ends when stop closes it
	return func() { _ = provider.Close() }, nil
}
