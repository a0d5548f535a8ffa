package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/redshift"

	"github.com/daypass/daypass/internal/awsconfig"
	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/login"
	"github.com/daypass/daypass/internal/pgwire"
	"github.com/daypass/daypass/internal/proxy"
)

// proxyAccess gets credentials for the connections of the proxy. It calls the API a few times
// at once, whatever the number of connections, and opens one browser for all of them.
type proxyAccess struct {
	ctx     context.Context // of the proxy
	env     environment
	browser bool
	calls   chan struct{} // a place for each call in progress

	mu       sync.Mutex // guards profiles
	profiles map[callerFlags]*proxyProfile
}

// proxyProfile is the access key of one profile.
type proxyProfile struct {
	turn chan struct{} // a lock, held by putting something in; guards the fields below
	// found is kept only for profiles without a sign-in, whose keys may be slow to get. The files
	// of a sign-in are read every time, so that signing in or out takes effect at once.
	found   *awsconfig.Found
	attempt *signInAttempt
}

// signInAttempt is a sign-in in progress, for which a browser is open.
type signInAttempt struct {
	done   chan struct{}
	began  time.Time
	cancel context.CancelCauseFunc
	inVain atomic.Bool // a client has waited for it and has left, or has waited for as long as it may
	err    error       // once done is closed
	over   time.Time
}

// pending reports whether the sign-in is still in progress.
func (a *signInAttempt) pending() bool {
	select {
	case <-a.done:
		return false
	default:
		return true
	}
}

const (
	// concurrentCalls bounds the calls in progress.
	concurrentCalls = 8
	// browserPause is how long the browser is not opened again after a failed sign-in.
	browserPause = 30 * time.Second
	// attemptAge is how old a sign-in in progress may be before another one replaces it. Its own
	// limit is a timer, which stops while the machine is asleep.
	attemptAge = 15 * time.Minute
	// waitInVain is how long a connection waits for a sign-in that another one has waited for in
	// vain. Many clients give up after 10 seconds and show an error of their own, which does not
	// mention the sign-in. When they try again, they get ours.
	waitInVain = 5 * time.Second
)

// errReplaced is the cause with which a sign-in in progress ends when another one replaces it.
var errReplaced = errors.New("another sign-in replaces this one")

// passed reports whether at least d has passed since then. It compares wall clocks, because Go's
// monotonic clock stops while the machine is asleep. A clock that was put back by d or more counts
// as passed, too.
func passed(now, then time.Time, d time.Duration) bool {
	return now.Round(0).Sub(then.Round(0)).Abs() >= d
}

func newProxyAccess(ctx context.Context, env environment, browser bool) *proxyAccess {
	return &proxyAccess{ctx: ctx, env: env, browser: browser, calls: make(chan struct{}, concurrentCalls), profiles: map[callerFlags]*proxyProfile{}}
}

// open gets a credential. The error is a *proxy.Refusal.
func (a *proxyAccess) open(ctx context.Context, to connectOptions, database string) (*proxy.Logon, error) {
	to.database = database
	to.api.oneShot = true
	logon, err := a.logon(ctx, to)
	if err != nil {
		return nil, refusalOf(ctx, err)
	}
	return logon, nil
}

// logon gets a credential, with a new sign-in if the server has ended the one in the files.
func (a *proxyAccess) logon(ctx context.Context, to connectOptions) (*proxy.Logon, error) {
	profile := a.profile(to.api)
	found, err := a.keys(ctx, profile, to.api, "")
	if err != nil {
		return nil, err
	}
	logon, err := a.ask(ctx, found, to)
	if hasEnded(found.Profile, err) {
		var keys aws.Credentials
		if keys, err = found.SDK.Credentials.Retrieve(ctx); err == nil {
			found, err = a.keys(ctx, profile, to.api, keys.AccessKeyID)
		}
		if err != nil {
			return nil, err
		}
		logon, err = a.ask(ctx, found, to)
	}
	if err != nil {
		profile.forget(ctx, found)
	}
	return logon, err
}

// ask calls the API.
func (a *proxyAccess) ask(ctx context.Context, found *awsconfig.Found, to connectOptions) (*proxy.Logon, error) {
	select {
	case a.calls <- struct{}{}:
		defer func() { <-a.calls }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	client := redshift.NewFromConfig(found.SDK, func(options *redshift.Options) { options.BaseEndpoint = aws.String(found.Endpoint) })
	var at logon
	if err := to.locate(ctx, client, &at); err != nil {
		return nil, err
	}
	if err := to.secureForProxy(&at, os.Getenv); err != nil {
		return nil, err
	}
	roots, err := at.roots()
	if err != nil {
		return nil, err
	}
	seconds, err := to.check()
	if err != nil {
		return nil, err
	}
	if err := to.ask(ctx, client, seconds, &at); err != nil {
		return nil, err
	}
	return &proxy.Logon{User: at.user, Database: at.database, Password: at.password.Reveal(),
		Gateway: proxy.Gateway{Host: at.host, Port: at.port, TLS: &proxy.TLS{Mode: at.sslMode, Roots: roots}, Direct: to.direct}}, nil
}

// secureForProxy is secure without PGSSLMODE, which is for other servers, and without the
// exception for loopback addresses: another user of this machine can listen there while the
// gateway, or the tunnel to it, does not run.
func (o *connectOptions) secureForProxy(at *logon, getenv func(string) string) error {
	_, err := o.secure(at, func(name string) string {
		if name == "PGSSLMODE" {
			return ""
		}
		return getenv(name)
	})
	if err == nil && o.sslMode == "" && at.sslMode != "verify-full" {
		err = errors.New(noCA)
	}
	return err
}

// roots reads the CA certificates that the gateway is checked with, from where libpq finds them.
// Like libpq, it refuses public CAs with an sslmode that does not check the name, because anyone
// can get a certificate from a public CA.
func (l *logon) roots() ([]byte, error) {
	path := l.sslRootCert
	if path == systemCA {
		if l.sslMode != "verify-full" {
			return nil, fmt.Errorf("sslmode=%s with sslrootcert=system takes the certificate of anyone: use verify-full", l.sslMode)
		}
		return nil, nil
	}
	if path == "" {
		if path = defaultRootCert(); path == "" {
			if l.sslMode == "verify-ca" {
				return nil, errors.New("sslmode=verify-ca without sslrootcert takes the certificate of anyone: name the gateway's CA, or use verify-full")
			}
			return nil, nil
		}
	}
	data, err := config.ReadAgain(path)
	if err != nil {
		return nil, fmt.Errorf("the CA certificate of the gateway: %w", err)
	}
	return data, nil
}

func (a *proxyAccess) profile(flags callerFlags) *proxyProfile {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.profiles[flags]
	if p == nil {
		p = &proxyProfile{turn: make(chan struct{}, 1)}
		a.profiles[flags] = p
	}
	return p
}

// forget makes the next connection read the keys again: they may have been replaced.
func (p *proxyProfile) forget(ctx context.Context, found *awsconfig.Found) {
	select {
	case p.turn <- struct{}{}:
		if p.found == found {
			p.found = nil
		}
		<-p.turn
	case <-ctx.Done():
	}
}

// keys returns the configuration of the API with a valid access key. If a sign-in is needed, it
// waits until the person has signed in. A sign-in is also needed if its access key is the one that
// the server has rejected.
func (a *proxyAccess) keys(ctx context.Context, p *proxyProfile, flags callerFlags, rejected string) (*awsconfig.Found, error) {
	for {
		select {
		case p.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		found, attempt, err := a.keysLocked(ctx, p, flags, rejected)
		<-p.turn
		if attempt == nil {
			return found, err
		}
		if err := attempt.wait(ctx, found.Profile.Name); err != nil {
			return nil, err
		}
	}
}

// wait returns once the sign-in is over, or with an error if it takes too long for a client.
func (a *signInAttempt) wait(ctx context.Context, profile string) error {
	short := time.NewTimer(waitInVain)
	defer short.Stop()
	for waiting := true; waiting; {
		select {
		case <-a.done:
			return a.err
		case <-short.C:
			// A client that gave up and tries again may be here before its first connection is
			// known to have ended.
			waiting = !a.inVain.Load()
		case <-ctx.Done():
			waiting = false
		}
	}
	a.inVain.Store(true)
	return signInRefusal(profile, "sign in at the browser that has opened, or run daypass login --profile %s, then connect again")
}

// keysLocked is keys without the wait: if a person has to sign in, it returns the attempt to wait
// for. The caller holds p.turn.
func (a *proxyAccess) keysLocked(ctx context.Context, p *proxyProfile, flags callerFlags, rejected string) (*awsconfig.Found, *signInAttempt, error) {
	pending := p.attempt != nil && p.attempt.pending()
	found := p.found
	if found == nil {
		loaded, err := flags.load(ctx, a.env, "redshift")
		if err != nil {
			return nil, nil, err
		}
		found = &loaded
	}
	keys, err := found.SDK.Credentials.Retrieve(ctx)
	switch {
	case err == nil && keys.AccessKeyID == rejected:
	case err == nil:
		if found.Profile.Setting(awsconfig.LoginSession) == "" {
			p.found = found
		}
		return found, nil, nil
	case !awsconfig.NeedsSignIn(found.Profile, err):
		p.found = nil
		return nil, nil, err
	}
	name := found.Profile.Name
	now := a.env.now()
	if p.attempt != nil {
		select {
		case <-p.attempt.done:
			if p.attempt.err != nil && !passed(now, p.attempt.over, browserPause) {
				return nil, nil, p.attempt.err
			}
			if pending {
				return found, p.attempt, nil // it ended after the keys were read: read them again
			}
		default:
			if !passed(now, p.attempt.began, attemptAge) {
				return found, p.attempt, nil
			}
			p.attempt.cancel(errReplaced)
		}
	}
	if !a.browser || !hasBrowser(os.Getenv) {
		return nil, nil, signInRefusal(name, "run daypass login --profile %s, then connect again")
	}
	ctx, cancel := context.WithCancelCause(a.ctx)
	attempt := &signInAttempt{done: make(chan struct{}), began: now, cancel: cancel}
	p.attempt = attempt
	go a.watchFiles(ctx, cancel, flags, rejected)
	go func() {
		defer cancel(nil)
		if err := a.env.signIn(ctx, *found, browserHere, ""); err != nil && !errors.Is(context.Cause(ctx), errReplaced) {
			refusal := signInRefusal(name, "run daypass login --profile %s, then connect again")
			refusal.Detail = awsconfig.Plainly(err).Error()
			attempt.err, attempt.over = refusal, a.env.now()
		}
		close(attempt.done)
	}()
	return found, attempt, nil
}

// watchFiles ends a sign-in in progress when the person has signed in elsewhere, such as with
// `daypass login` in a terminal. It reads the keys only if a file has changed, because reading keys
// that have expired asks the server.
func (a *proxyAccess) watchFiles(ctx context.Context, cancel context.CancelCauseFunc, flags callerFlags, rejected string) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for before := signInFiles(); ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now := signInFiles()
		if now == before {
			continue
		}
		before = now
		found, err := flags.load(ctx, a.env, "redshift")
		if err != nil {
			continue
		}
		if keys, err := found.SDK.Credentials.Retrieve(ctx); err == nil && keys.AccessKeyID != rejected {
			cancel(errReplaced)
			return
		}
	}
}

// signInFiles describes the files that a sign-in writes, so that a change shows.
func signInFiles() string {
	var text strings.Builder
	add := func(info os.FileInfo) {
		fmt.Fprintln(&text, info.Name(), info.Size(), info.ModTime().UnixNano())
	}
	if path, err := awsconfig.File(os.Getenv); err == nil {
		if info, err := os.Stat(path); err == nil {
			add(info)
		}
	}
	dir, err := login.CacheDir(os.Getenv)
	if err != nil {
		return text.String()
	}
	entries, _ := os.ReadDir(dir) // a cache that does not exist is empty
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			add(info)
		}
	}
	return text.String()
}

// hasBrowser reports whether the person is likely to see a browser that is opened on this
// machine.
func hasBrowser(getenv func(string) string) bool {
	if getenv("BROWSER") != "" {
		return true
	}
	return getenv("SSH_CONNECTION") == "" && (runtime.GOOS == "darwin" || runtime.GOOS == "windows" || getenv("DISPLAY") != "" || getenv("WAYLAND_DISPLAY") != "")
}

// signInRefusal tells the person what to do in the message itself: many clients show nothing else.
// The advice is a format for the name of the profile.
func signInRefusal(profile, advice string) *proxy.Refusal {
	return &proxy.Refusal{SQLState: pgwire.StateInvalidAuthorization, Message: fmt.Sprintf("your sign-in is over, in the profile \"%s\": "+advice, profile, profile)}
}

// refusalOf converts an error to what the client is told.
func refusalOf(ctx context.Context, err error) *proxy.Refusal {
	if known, ok := errors.AsType[*proxy.Refusal](err); ok {
		return known
	}
	if ctx.Err() != nil {
		return &proxy.Refusal{SQLState: pgwire.StateCannotConnect, Message: "no credential within a minute: the API does not answer", Hint: "Try again. `daypass doctor` looks at what is wrong."}
	}
	text, advice, _ := strings.Cut(awsconfig.Plainly(err).Error(), "\n\n")
	r := &proxy.Refusal{SQLState: pgwire.StateCannotConnect, Message: text}
	if strings.Contains(advice, "redshift:DescribeClusters") {
		r.Hint = "Ask for the permission redshift:DescribeClusters, or add host=HOST,port=PORT to the map."
	} else if advice != "" {
		r.Hint = advice
	}
	if api, ok := errors.AsType[*awsconfig.APIError](awsconfig.Explain(err)); ok {
		switch code := api.Code; {
		case strings.HasPrefix(code, "AccessDenied"):
			r.SQLState = pgwire.StateInsufficientRights
		case strings.HasPrefix(code, "Throttling"):
			r.SQLState = pgwire.StateTooManyConnections
		case strings.HasPrefix(code, "ExpiredToken"), code == "InvalidClientTokenId", code == "SignatureDoesNotMatch":
			r.SQLState = pgwire.StateInvalidAuthorization
		default:
			r.SQLState = pgwire.StateRejected
		}
	}
	return r
}
