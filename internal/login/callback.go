package login

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// callbackListener waits for the browser, on this machine only.
type callbackListener struct {
	host     string // with the port
	redirect string
	state    string
	server   *http.Server
	answers  chan url.Values
}

const callbackPath = "/oauth/callback"

func listen(state string) (*callbackListener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("waiting for the browser: %w", err)
	}
	host := l.Addr().String()
	c := &callbackListener{host: host, redirect: "http://" + host + callbackPath, state: state, answers: make(chan url.Values, 1)}
	c.server = &http.Server{Handler: http.HandlerFunc(c.answer), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10}
	go func() { _ = c.server.Serve(l) }() // it ends with close
	return c, nil
}

func (c *callbackListener) close() { _ = c.server.Close() }

// answer takes the first request that has a code and the state of this sign-in. Any web page can
// send the browser here, so a wrong state does not end the sign-in: the right answer may still
// come.
func (c *callbackListener) answer(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet || r.Host != c.host || r.URL.Path != callbackPath || query.Get("code") == "" {
		http.Error(w, "There is nothing here.", http.StatusNotFound)
		return
	}
	if subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(c.state)) != 1 {
		http.Error(w, "This is the answer to another sign-in. Run the command again if the terminal goes on waiting.", http.StatusBadRequest)
		return
	}
	select {
	case c.answers <- query:
	default:
	}
	_, _ = w.Write([]byte(`<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Daypass</title></head>` +
		`<body><h1>Go back to the terminal</h1><p>This tab can be closed.</p></body></html>`))
}

func (c *callbackListener) wait(ctx context.Context) (url.Values, error) {
	select {
	case answer := <-c.answers:
		// Let the page arrive before the server is closed.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = c.server.Shutdown(ctx)
		return answer, nil
	case <-ctx.Done():
		if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
			return nil, err
		}
		return nil, ctx.Err()
	}
}
