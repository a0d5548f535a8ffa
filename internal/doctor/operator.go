package doctor

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/clustercheck"
	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/server"
)

// Operator checks a server on this machine, whether or not it is running.
type Operator struct {
	Config string // path of the configuration
	Getenv func(string) (string, bool)
	Now    func() time.Time
	Built  time.Time // time of this program's commit; zero: not known
	// Check checks a cluster, as "daypass cluster check" does.
	Check func(context.Context, config.Cluster) (clustercheck.Report, error)
	// SkipClusters skips the checks of the databases.
	SkipClusters bool
}

// Learn adds the secrets of the configuration to the mask before anything is reported: those in
// the file, in the files that it names, and in the environment. It reads the file as text, so it
// works even if the configuration cannot be parsed.
func (o *Operator) Learn(mask *Mask) {
	text, err := os.ReadFile(o.Config)
	if err != nil {
		return
	}
	for _, found := range assigned.FindAllStringSubmatch(string(text), -1) {
		value := strings.Trim(found[2], "\"'`,;:)} \t\n")
		mask.Secret(value)
		if at := strings.IndexAny(value, `,}&`); at > 0 {
			mask.Secret(value[:at])
		}
	}
	for _, pattern := range []*regexp.Regexp{inConfigURL, quotedSecret, plainSecret, blockSecret} {
		for _, found := range pattern.FindAllStringSubmatch(string(text), -1) {
			for _, value := range found[1:] {
				for line := range strings.Lines(value) {
					mask.Secret(line)
				}
			}
		}
	}
	for _, found := range secretFile.FindAllStringSubmatch(string(text), -1) {
		path := found[1]
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(o.Config), path)
		}
		if data, err := os.ReadFile(path); err == nil && len(data) < 64<<10 {
			for line := range strings.Lines(string(data)) {
				mask.Secret(line)
			}
		}
	}
	for _, found := range secretVariable.FindAllStringSubmatch(string(text), -1) {
		if value, ok := o.Getenv(found[1]); ok {
			mask.Secret(value)
		}
	}
	for _, found := range clusterInConfig.FindAllStringSubmatch(string(text), -1) {
		mask.Cluster(found[1])
	}
	for _, found := range hostInConfig.FindAllStringSubmatch(string(text), -1) {
		for host := range strings.SplitSeq(found[1], ",") {
			if name, _, err := net.SplitHostPort(host); err == nil {
				host = name
			}
			mask.Host(host)
		}
	}
	if name, err := os.Hostname(); err == nil {
		mask.Host(name)
	}
}

var (
	clusterInConfig = regexp.MustCompile(`\bidentifier\s*:\s*["']?([A-Za-z0-9-]+)`)
	inConfigURL     = regexp.MustCompile(`://[^/@\s:"']*:([^\s"']+)@`)
	// A secret may have spaces: in quotation marks, to the end of its line, or in lines of its own.
	quotedSecret   = regexp.MustCompile(`(?:secret|password|seed|token)["']?\s*[:=]\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)')`)
	plainSecret    = regexp.MustCompile(`(?m)(?:secret|password|seed|token)["']?[ \t]*:[ \t]+([^\s"'|>&*\[{][^\n,}]*)`)
	blockSecret    = regexp.MustCompile(`(?:secret|password|seed|token)["']?[ \t]*:[ \t]*[|>][-+0-9]*[ \t]*\n((?:[ \t]+[^\n]*\n?)+)`)
	secretFile     = regexp.MustCompile(`(?:secret|password|seed|key)(?:_file)?\s*:\s*["']?([^\s"',}]+)`)
	secretVariable = regexp.MustCompile(`(?:secret|password|seed)_env\s*:\s*["']?([^\s"',}]+)`)
	hostInConfig   = regexp.MustCompile(`(?:://(?:[^/@\s]*@)?|\bhost(?:addr)?\s*[=:]\s*["']?)([^\s"'/?},]+(?:,[^\s"'/?}, ]+)*)`)
)

// Run runs all checks.
func (o *Operator) Run(ctx context.Context, r *Report) {
	r.built(o.Built, o.Now())
	cfg := o.configuration(r)
	if cfg == nil {
		return
	}
	state, known := o.files(r, cfg)
	running := state.Running
	if cfg.RootKey != nil {
		o.sharedKeys(ctx, r, cfg)
	} else {
		o.keys(r, cfg)
	}
	o.certificates(r, cfg)
	o.registry(r, cfg, running)
	switch {
	case running:
		o.endpoint(ctx, r, cfg, state.Instance)
		o.gateway(ctx, r, cfg)
	case known:
		o.ports(ctx, r, cfg)
	}
	o.advertised(ctx, r, cfg, running)
	o.signIn(ctx, r, cfg)
	if !o.SkipClusters {
		o.clusters(ctx, r, cfg)
	}
}

// asServer is the remedy for files that this account may not read.
const asServer = "run this as root, or as the account of the server: runuser -u daypass -- daypass doctor"

// giveBack is the remedy for files that the server's account may not read.
const giveBack = "give the data directory to the account of the server, as root: chown -R daypass: DATA, where DATA is what data names"

// remedy returns what to do about an error. A file that could not be opened may be sound: the remedy
// is to make it accessible, and never to replace it.
func remedy(err error, do string) string {
	if errors.Is(err, fs.ErrPermission) {
		return asServer + "; if this is that account, " + giveBack
	}
	if of, ok := errors.AsType[*fs.PathError](err); ok && of.Op == "open" && !errors.Is(err, fs.ErrNotExist) {
		return "make the file accessible again (a disk that is mounted read-only: mount -o remount,rw)"
	}
	return do
}

// configuration reads the file. Environment variables that only the server has are not a fault
// of the file.
func (o *Operator) configuration(r *Report) *config.Config {
	const about, do = "configuration", "run daypass config check with the same --config"
	cfg, err := config.LoadEnv(o.Config, o.Getenv)
	if err != nil {
		lenient, lenientErr := config.LoadEnv(o.Config, config.SomeSecret)
		if lenientErr != nil {
			for line := range strings.Lines(lenientErr.Error()) {
				do := do
				if strings.Contains(line, fs.ErrPermission.Error()) {
					do = asServer
				}
				r.fail(about, do, "%s", strings.TrimSpace(line))
			}
			return nil
		}
		for line := range strings.Lines(err.Error()) {
			r.warn(about, "if the server has the variable, run this with the server's environment", "%s", strings.TrimSpace(line))
		}
		cfg = lenient
		o.SkipClusters = true
		r.warn("clusters", "run this with the server's environment", "not looked at: their passwords are in variables that are not set here")
	}
	for _, warning := range cfg.Warnings {
		r.warn(about, do, "%s", warning)
	}
	if err == nil && len(cfg.Warnings) == 0 {
		r.ok(about, "is valid: clusters %d, identity providers %d", len(cfg.Clusters), len(cfg.Directory.Providers()))
	}
	return cfg
}

// files checks the data directory: its permissions, which process uses it, and the free space of
// its disk. It returns what it found, and whether that is known.
func (o *Operator) files(r *Report, cfg *config.Config) (state server.DataState, known bool) {
	const about = "files"
	state, err := server.InspectData(cfg.Data)
	if errors.Is(err, fs.ErrNotExist) {
		r.warn(about, "start the server, which makes it", "the data directory does not exist yet")
		return state, true
	}
	if err != nil {
		r.fail(about, asServer+"; if this is that account, "+giveBack, "the data directory cannot be read: %v", err)
		return state, false
	}
	for _, fault := range state.Faults {
		r.fail(about, "close it to other accounts with that command: a server does not start with it", "%v", fault)
	}
	if len(state.Faults) == 0 {
		r.ok(about, "the data directory is closed to other accounts")
	}
	r.disks(cfg.Data, room)
	if len(state.Foreign) > 0 {
		r.fail(about, giveBack, "the server's account may not use what is in the data directory: %s", strings.Join(state.Foreign, ", "))
	}
	if state.Running {
		r.ok(about, "a server runs on the data directory")
	} else {
		r.warn(about, "start it (systemctl start daypass), unless it is meant to be down", "no server runs on the data directory")
	}
	return state, true
}

// disks checks the free space of the data directory and, if it has a disk of its own, of the audit log.
func (r *Report) disks(data string, room func(path string) (free, total uint64, ok bool)) {
	const about, do = "files", "make room: move days of data/audit away, or give it a larger disk"
	var before struct{ free, total uint64 }
	for _, place := range []struct{ path, name string }{{data, "data directory"}, {filepath.Join(data, "audit"), "audit log"}} {
		free, total, ok := room(place.path)
		if !ok || free == before.free && total == before.total { // the same disk
			continue
		}
		before.free, before.total = free, total
		switch mib := free >> 20; {
		case mib < 64:
			r.fail(about, do, "the disk of the %s has %d MiB left: what cannot be recorded is refused", place.name, mib)
		case free < total/20:
			r.warn(about, do, "the disk of the %s has %d MiB left, less than 5%%", place.name, mib)
		default:
			r.ok(about, "the disk of the %s has room", place.name)
		}
	}
}

// oldKey is the age of a key at which the alert DaypassKeyOld fires.
const oldKey = 90 * 24 * time.Hour

func (o *Operator) keys(r *Report, cfg *config.Config) {
	const about = "keys"
	file, err := keyring.LoadFile(cfg.Keyring)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.warn(about, "start the server, which makes it; if there was one, restore it from a backup first", "there is no keyring yet")
		return
	case err != nil:
		r.fail(about, remedy(err, "restore the keyring from a backup, or copy it from another server"), "%v", err)
		return
	}
	o.ages(r, file.Current().Keys(o.Now()))
}

// ages checks how old the keys are that sign credentials.
func (o *Operator) ages(r *Report, keys []keyring.Info) {
	const about = "keys"
	signing := 0
	for _, key := range keys {
		if key.Purpose != keyring.Credential || key.State != keyring.InUse {
			continue
		}
		signing++
		if age := o.Now().Sub(key.Active); age > oldKey {
			r.warn(about, "run daypass keys rotate", "the key that signs credentials is %d days old", int(age.Hours()/24))
		} else {
			r.ok(about, "the key that signs credentials is %d days old", int(age.Hours()/24))
		}
	}
	if signing == 0 {
		r.fail(about, "look at daypass keys list, and at the clock", "no key signs credentials now")
	}
}

// registry checks the place where revocations are kept. A running server has the file open, so
// endpoint asks that server instead.
func (o *Operator) registry(r *Report, cfg *config.Config, running bool) {
	const about = "registry"
	if cfg.Registry.Etcd == nil && running {
		return
	}
	count, err := server.InspectRegistry(cfg, o.Now)
	switch {
	case errors.Is(err, fs.ErrNotExist) && exists(cfg.Keyring):
		r.warn(about, "restore registry.db, or start the server and run daypass revoke --all, unless nothing was revoked",
			"there are keys, but no registry.db: it is not known what is revoked")
	case errors.Is(err, fs.ErrNotExist):
		r.ok(about, "there is none yet; the server makes it")
	case err != nil:
		do := "restore registry.db, or move it away, start the server and run daypass revoke --all"
		if cfg.Registry.Etcd != nil {
			do = "run etcdctl endpoint health with the endpoints of registry.etcd"
		}
		r.fail(about, remedy(err, do), "it is not known what is revoked: %v", err)
	default:
		r.ok(about, "can be read: %d revocations are in force", count)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// endpoint asks the server for its own state. The secret tells that server from others, such as one that
// a changed api.listen leads to.
func (o *Operator) endpoint(ctx context.Context, r *Report, cfg *config.Config, instance keyring.Secret) {
	const about = "endpoint"
	scheme := "http"
	if cfg.API.TLS.Given() {
		scheme = "https"
	}
	address := reachable(cfg.API.Listen)
	challenge := rand.Text()
	another := func(a answer) bool { return instance != "" && a.proof != server.Proof(instance, challenge) }
	ready, err := challengeWith(ctx, scheme+"://"+address+"/readyz", nil, challenge)
	switch {
	case err != nil:
		r.fail(about, "look at the server's log", "a server runs, and the API at %s does not answer: %v", address, err)
	case another(ready):
		r.fail(about, notThisServer(address, "api.listen"), "another server than the one that runs on the data directory answers at %s, the address of the API", address)
	case ready.status == http.StatusOK:
		r.ok(about, "the API at %s answers and is ready", address)
	default:
		r.fail(about, "look at the server's log", "the API at %s is not ready (%d)", address, ready.status)
	}
	if err == nil && scheme == "https" && cfg.API.TLS.Given() && ready.leaf != nil && !ready.leaf.Equal(cfg.API.TLS.Pair.Leaf) {
		r.warn(about, "look at the server's log: it may refuse the files; or something else listens there", "the API at %s shows another certificate than the one in api.tls", address)
	}
	if cfg.Admin.Listen == "" {
		return
	}
	address = reachable(cfg.Admin.Listen)
	state, err := challengeWith(ctx, "http://"+address+"/readyz", nil, challenge)
	if err != nil {
		r.fail(about, "look at the server's log", "the listener of admin does not answer: %v", err)
		return
	}
	if another(state) {
		r.fail(about, notThisServer(address, "admin.listen"), "another server than the one that runs on the data directory answers at %s, the address of admin", address)
		return
	}
	var said struct {
		Issue, Logons struct{ Reason string }
		Warnings      []string
	}
	if json.Unmarshal(state.body, &said) != nil {
		return
	}
	for _, reason := range []string{said.Issue.Reason, said.Logons.Reason} {
		if reason != "" {
			r.fail(about, "docs/operations.md, \"Act on an alert\", has what to do", "the server says: %s", reason)
		}
	}
	for _, warning := range said.Warnings {
		r.warn(about, "fix it before the next restart", "the server says: %s", warning)
	}
}

// notThisServer returns the remedy for an address at which another server answers.
func notThisServer(address, key string) string {
	_, port, _ := net.SplitHostPort(address)
	return fmt.Sprintf("find out what it is (ss -ltnp 'sport = :%s') and end it, or change %s; if %[2]s was changed, restart the server", port, key)
}

// reachable returns the address at which this machine reaches a listener.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return listen
}

// answer is the answer to a probe.
type answer struct {
	status int
	date   time.Time
	body   []byte
	leaf   *x509.Certificate // nil: no TLS
	proof  string            // that the server of a data directory has answered
}

// probe requests a URL. If roots is nil the certificate is not verified: either the caller
// compares it afterwards, or the server is on this machine.
func probe(ctx context.Context, url string, client *http.Client) (answer, error) {
	return challengeWith(ctx, url, client, "")
}

// challengeWith is probe with a challenge for server.Proof. An empty one is not sent.
func challengeWith(ctx context.Context, url string, client *http.Client, challenge string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if client == nil {
		client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	if challenge != "" {
		request.Header.Set(server.ChallengeHeader, challenge)
	}
	response, err := client.Do(request)
	if err != nil {
		return answer{}, errors.New(plainly(unwrapped(err)))
	}
	defer response.Body.Close()
	a := answer{status: response.StatusCode, proof: response.Header.Get(server.ProofHeader)}
	a.date, _ = http.ParseTime(response.Header.Get("Date"))
	if a.body, err = io.ReadAll(io.LimitReader(response.Body, 1<<20)); err != nil {
		return answer{}, fmt.Errorf("the answer ends early: %w", err)
	}
	if response.TLS != nil && len(response.TLS.PeerCertificates) > 0 {
		a.leaf = response.TLS.PeerCertificates[0]
	}
	return a, nil
}

// unwrapped returns the cause of an error without the method and URL that net/http prefixes.
func unwrapped(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}
