package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssooidc"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/client"
	"github.com/daypass/daypass/internal/fleet"
	"github.com/daypass/daypass/test/etcdtest"
	"github.com/daypass/daypass/test/pgtest"
	"github.com/daypass/daypass/test/sitetest"
)

// documented is a cell of the table in docs/several-servers.md.
type documented struct {
	works bool
	after time.Duration // until it fails
}

var afterSeconds = regexp.MustCompile(`\bafter ([0-9]+) s\b`)

// documentedFaults reads the table of docs/several-servers.md, by function and by the state of etcd.
func documentedFaults(t *testing.T) map[string]map[string]documented {
	t.Helper()
	page, err := os.ReadFile("../../docs/several-servers.md")
	if err != nil {
		t.Fatal(err)
	}
	cells := func(line string) (list []string) {
		for cell := range strings.SplitSeq(strings.Trim(line, "| "), "|") {
			list = append(list, strings.TrimSpace(cell))
		}
		return list
	}
	_, text, found := strings.Cut(string(page), "\n| function |")
	if !found {
		t.Fatal("the table is missing")
	}
	lines := strings.Split(text, "\n")
	states, table := cells(lines[0]), map[string]map[string]documented{}
	for _, line := range lines[2:] {
		if !strings.HasPrefix(line, "|") {
			break
		}
		row := cells(line)
		table[row[0]] = map[string]documented{}
		for i, state := range states {
			cell := documented{works: strings.HasPrefix(row[i+1], "work")}
			if found := afterSeconds.FindStringSubmatch(row[i+1]); found != nil {
				n, _ := strconv.Atoi(found[1])
				cell.after = time.Duration(n) * time.Second
			}
			table[row[0]][state] = cell
		}
	}
	return table
}

// TestEtcdFaults: while etcd is slow, cut off or full, or refuses requests, each function does what
// docs/several-servers.md states, in time. Afterwards all of them work again by themselves.
func TestEtcdFaults(t *testing.T) {
	table := documentedFaults(t)
	const slow, cut, full, refused = "etcd takes a second for each answer", "cut off", "etcd is full (`NOSPACE`)", "etcd has taken the user's rights away"
	var all sync.WaitGroup // at once, however many tests may run in parallel: they mostly wait
	defer all.Wait()
	for name, row := range map[string]struct {
		members     int    // of etcd
		state       string // in the documented table; "": everything works
		fault, heal func(line *etcdtest.Line, etcd *etcdtest.Server)
	}{
		"a second":     {1, slow, func(l *etcdtest.Line, _ *etcdtest.Server) { l.Delay(time.Second) }, func(l *etcdtest.Line, _ *etcdtest.Server) { l.Delay(0) }},
		"silent":       {1, cut, func(l *etcdtest.Line, _ *etcdtest.Server) { l.Stall(true) }, func(l *etcdtest.Line, _ *etcdtest.Server) { l.Stall(false) }},
		"refused":      {1, cut, func(l *etcdtest.Line, _ *etcdtest.Server) { l.Cut() }, func(l *etcdtest.Line, _ *etcdtest.Server) { l.Mend() }},
		"one of three": {3, "", func(_ *etcdtest.Line, e *etcdtest.Server) { e.Stop() }, func(_ *etcdtest.Line, e *etcdtest.Server) { e.Start() }},
		"full":         {1, full, func(_ *etcdtest.Line, e *etcdtest.Server) { e.Full(true) }, func(_ *etcdtest.Line, e *etcdtest.Server) { e.Full(false) }},
		"no rights":    {1, refused, func(_ *etcdtest.Line, e *etcdtest.Server) { e.Grant(false) }, func(_ *etcdtest.Line, e *etcdtest.Server) { e.Grant(true) }},
	} {
		all.Go(func() {
			t.Run(name, func(t *testing.T) {
				etcd := etcdtest.StartCluster(t, row.members)
				line := etcdtest.NewLine(t, etcd[0].Host)
				endpoints := []string{line.URL}
				for _, other := range etcd[1:] {
					endpoints = append(endpoints, other.URL)
				}
				more := ""
				if row.state == refused {
					etcd[0].Users("daypass", sitetest.AdminPassword, "daypass/")
					more = "username: daypass, password_file: upstream.password"
				}
				f := newFaulty(t, startDatabase(t), endpoints, more)
				row.fault(line, etcd[0])
				want := func(function string) documented {
					if row.state == "" {
						return documented{works: true}
					}
					cell, found := table[function][row.state]
					if !found {
						t.Errorf("%s is not in the table", function)
					}
					return cell
				}
				if !want("log on").works {
					pgtest.Eventually(t, "logons to be refused", func() bool { return strings.HasPrefix(f.here.refusal(f.credential), "57P03 ") })
				} else {
					time.Sleep(2500 * time.Millisecond) // longer than an earlier read is used
				}
				f.check(want, table)
				began := time.Now()
				row.heal(line, etcd[0])
				pgtest.Eventually(t, "everything to work again", func() bool {
					return f.here.refusal(f.credential) == "" && f.there.refusal(f.credential) == "" && f.ready() == nil && f.sessions() == nil && f.listKeys() == nil &&
						f.refresh() == nil
				})
				t.Logf("works again after %v", time.Since(began).Round(10*time.Millisecond))
				if want("rotate keys").works {
					settled(t, f.rotator)
				}
				if !want("revoke").works {
					if err := f.revoke(); err != nil {
						t.Errorf("revoking afterwards: %v", err)
					}
				}
			})
		})
	}
}

// faulty is two servers whose etcd has a fault. The second one has a session for each function that
// needs one.
type faulty struct {
	t               *testing.T
	here, there     *served
	credential      issued
	toCancel, other *pgconn.PgConn
	toKill          string
	// The operators, one for each function that is used at the same time.
	lister, viewer, rotator *Keys
	people                  *signInSite // here, with its identity provider
	signedIn                *device
	refreshToken            string
	device                  *ssoClient
	third                   *served // to be started
}

func newFaulty(t *testing.T, database string, endpoints []string, more string) *faulty {
	t.Helper()
	quoted := make([]string, len(endpoints))
	for i, endpoint := range endpoints {
		quoted[i] = fmt.Sprintf("%q", endpoint)
	}
	text := adminListener + "registry: {etcd: {endpoints: [" + strings.Join(quoted, ", ") + "]"
	if more != "" {
		text += ", " + more
	}
	text += "}}\nroot_key: {file: root.key}\npeers: {listen: \"127.0.0.1:0\"}\n"
	f := &faulty{t: t, people: newProvider(t)}
	text += f.people.signIn("")
	for _, s := range []**served{&f.here, &f.there, &f.third} {
		*s = newServed(t, database, text)
		if err := (*s).site.Write("root.key", testRootKey); err != nil {
			t.Fatal(err)
		}
		(*s).edit("\niam:\n", "\niam:\n"+f.people.roles())
	}
	f.people.served = f.here
	f.here.edit("\napi: {listen: 127.0.0.1:0", "\napi: {listen: \""+strings.TrimPrefix(f.people.api, "http://")+"\"")
	f.here.start()
	f.there.start()
	f.signedIn = f.people.device(sameDevice)
	pgtest.Eventually(t, "keys of a sign-in", func() bool {
		f.refreshToken = f.signedIn.redeem(f.signedIn.signIn("1", "analyst")).RefreshToken
		return f.refreshToken != ""
	})
	f.device = f.people.ssoClient(f.people.api, accountAccess)
	f.lister, f.viewer, f.rotator = f.here.keys(), f.here.keys(), f.here.keys()
	f.credential = f.here.issue(f.here.now())
	known := map[string]bool{"": true}
	for _, conn := range []**pgconn.PgConn{&f.toCancel, &f.other, new(*pgconn.PgConn)} {
		session, err := f.there.logon(f.credential)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { session.Close(context.Background()) })
		*conn = session.PgConn()
		pgtest.Eventually(t, "the other server to list the session", func() bool {
			list, _, err := f.here.operator().Sessions(t.Context(), "", "")
			for _, s := range list {
				if !known[s.ID] {
					f.toKill = s.ID
				}
			}
			return err == nil && !known[f.toKill]
		})
		known[f.toKill] = true
	}
	return f
}

// edit changes the configuration file.
func (s *served) edit(old, new string) {
	s.t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		s.t.Fatalf("the configuration lacks %q", old)
	}
	if err := os.WriteFile(s.config, []byte(strings.Replace(string(text), old, new, 1)), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

const (
	// mostTime is the longest that a function may take on a busy machine.
	mostTime = 90 * time.Second
	// lateness is how much longer than documented a function may take to fail there.
	lateness = 30 * time.Second
	// shortPatience is the StartPatience of a server that cannot start. A function that is
	// documented to fail after startPatience fails after this.
	shortPatience = 5 * time.Second
)

// check uses every function of the table at once.
func (f *faulty) check(want func(function string) documented, table map[string]map[string]documented) {
	f.t.Helper()
	type outcome struct {
		function string
		err      error
		took     time.Duration
	}
	functions := map[string]func() error{
		"open sessions": func() error { return f.other.Exec(f.t.Context(), "SELECT 1").Close() },
		"issue credentials": func() error {
			if c := f.here.issue(f.here.now()); c.status != http.StatusOK {
				return fmt.Errorf("%d %s", c.status, c.Code)
			}
			return nil
		},
		"issue session tokens": f.sessionToken,
		"log on": func() error {
			if refusal := f.here.refusal(f.credential); refusal != "" {
				return errors.New(refusal)
			}
			return nil
		},
		"list sessions":                f.sessions,
		"cancel":                       f.cancel,
		"list keys":                    f.listKeys,
		"list servers":                 func() error { _, err := f.viewer.Servers(f.t.Context()); return err },
		"reload":                       f.reload,
		"readyz":                       f.ready,
		"kill":                         func() error { return f.here.operator().Terminate(f.t.Context(), f.toKill) },
		"rotate keys":                  func() error { return f.rotator.Rotate(f.t.Context(), fleet.Rotation{}) },
		"revoke":                       f.revoke,
		"sign in at a browser":         f.browse,
		"refresh a sign-in":            f.refresh,
		"sign in with `aws sso login`": f.meet,
		"start":                        func() error { return f.start(want("start").works) },
		"clean up after sessions":      f.swept,
	}
	for function := range table {
		if functions[function] == nil {
			f.t.Errorf("%s is in the table, and not in this test", function)
		}
	}
	outcomes := make(chan outcome, len(functions))
	for name, do := range functions {
		go func() {
			began := time.Now()
			err := errors.New("it ended the test")
			defer func() { outcomes <- outcome{name, err, time.Since(began)} }()
			err = do()
			for err != nil && want(name).works && time.Since(began) < mostTime { // on a busy machine etcd itself may be late
				time.Sleep(100 * time.Millisecond)
				err = do()
			}
		}()
	}
	for range functions {
		o := <-outcomes
		want := want(o.function)
		f.t.Logf("%s: %v after %v", o.function, o.err, o.took.Round(10*time.Millisecond))
		if (o.err == nil) != want.works {
			f.t.Errorf("%s: %v, want that it works: %t", o.function, o.err, want.works)
			continue
		}
		most := mostTime
		if !want.works {
			most = want.after + lateness
		}
		if o.took > most {
			f.t.Errorf("%s took %v, documented are %v", o.function, o.took, want.after)
		}
	}
}

// browse signs in with a browser, chooses an IAM role and exchanges the code for keys.
func (f *faulty) browse() error {
	d, b := f.people.device(sameDevice), newBrowser(f.t)
	b.http.Timeout = mostTime
	b.open(d.authorizeURL())
	b.send("person", "2")
	if b.status != http.StatusOK || !strings.Contains(b.page, ">engineer<") {
		return fmt.Errorf("the page of roles: %d %s", b.status, b.page)
	}
	b.send("role", "engineer")
	code := b.last.Query().Get("code")
	if code == "" {
		return fmt.Errorf("after the choice: %d %s", b.status, b.page)
	}
	if got := d.redeem(code); got.status != http.StatusOK {
		return fmt.Errorf("exchanging the code: %d %s %s", got.status, got.Error, got.Message)
	}
	return nil
}

func (f *faulty) refresh() error {
	if got := f.signedIn.refresh(f.refreshToken); got.status != http.StatusOK {
		return fmt.Errorf("%d %s %s", got.status, got.Error, got.Message)
	}
	return nil
}

// meet signs a device in: it waits for a browser, in which a person allows it.
func (f *faulty) meet() error {
	begun, err := f.device.oidc.StartDeviceAuthorization(f.t.Context(), &ssooidc.StartDeviceAuthorizationInput{ClientId: f.device.id.ClientId,
		ClientSecret: f.device.id.ClientSecret, StartUrl: aws.String("https://identitycenter.amazonaws.com/ssoins-daypass")})
	if err != nil {
		return err
	}
	polled := make(chan error, 1)
	ctx, cancel := context.WithTimeout(f.t.Context(), mostTime)
	defer cancel()
	go func() {
		for {
			_, err := f.device.poll(begun.DeviceCode)
			if code := errorCode(err); code != "AuthorizationPendingException" && code != "SlowDownException" {
				polled <- err
				return
			}
			select {
			case <-ctx.Done():
				polled <- ctx.Err()
				return
			case <-time.After(time.Duration(begun.Interval) * time.Second):
			}
		}
	}()
	b := newBrowser(f.t)
	b.http.Timeout = mostTime
	b.open(*begun.VerificationUriComplete)
	b.send("person", "1")
	if b.status != http.StatusOK || !strings.Contains(b.page, ">Allow<") {
		cancel()
		return fmt.Errorf("the page of the device: %d; the device: %w", b.status, <-polled)
	}
	b.send("answer", "allow")
	return <-polled
}

// start starts a third server, and stops it.
func (f *faulty) start(can bool) error {
	if !can {
		f.third.starts = shortPatience
	}
	if err := f.third.tryStart(); err != nil {
		return err
	}
	return f.third.stop()
}

// swept waits for a sweep of the cluster by either server.
func (f *faulty) swept() error {
	sweeps := func() (n float64) {
		for _, s := range []*served{f.here, f.there} {
			_, _, text := s.get("http://" + s.where.Admin + "/metrics")
			for line := range strings.Lines(text) {
				if value, ok := strings.CutPrefix(line, `daypass_reaper_sweeps_total{cluster="examplecluster",result="ok"} `); ok {
					one, _ := strconv.ParseFloat(strings.TrimSpace(value), 64)
					n += one
				}
			}
		}
		return n
	}
	before := sweeps()
	for limit := time.Now().Add(mostTime); sweeps() == before; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(limit) {
			return errors.New("no server sweeps")
		}
	}
	return nil
}

func (f *faulty) sessionToken() error {
	key := sitetest.Keys["admin"]
	api := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: aws.String(f.here.where.API), Credentials: credentials.NewStaticCredentialsProvider(key[0], key[1], "")})
	_, err := api.GetSessionToken(f.t.Context(), &sts.GetSessionTokenInput{})
	return err
}

func (f *faulty) sessions() error {
	list, unanswered, err := f.here.operator().Sessions(f.t.Context(), "", "")
	if err == nil && (len(unanswered) > 0 || len(list) < 2) { // one session was killed
		err = fmt.Errorf("%d sessions, and %v have not answered", len(list), unanswered)
	}
	return err
}

func (f *faulty) listKeys() error {
	_, err := f.lister.Keys(f.t.Context())
	return err
}

func (f *faulty) ready() error {
	if status, _, body := f.here.get("http://" + f.here.where.Admin + "/readyz"); status != http.StatusOK {
		return errors.New(body)
	}
	return nil
}

func (f *faulty) revoke() error {
	_, err := f.here.operator().Revoke(f.t.Context(), client.Selector{DBUser: "no_one", Cluster: "examplecluster"})
	return err
}

// cancel cancels a query of the other server's session through this one.
func (f *faulty) cancel() error {
	done := make(chan error, 1)
	go func() { done <- f.toCancel.Exec(context.Background(), "SELECT pg_sleep(60)").Close() }()
	for limit := time.After(mostTime); ; {
		f.here.cancel(f.toCancel.PID(), f.toCancel.SecretKey())
		select {
		case err := <-done:
			if cancelled, ok := errors.AsType[*pgconn.PgError](err); ok && cancelled.Code == "57014" {
				return nil
			}
			return cmp.Or(err, errors.New("the query was not cancelled"))
		case <-limit:
			return errors.New("the request does not arrive")
		case <-time.After(100 * time.Millisecond): // the query may not have begun
		}
	}
}

func (f *faulty) reload() error {
	before := strings.Count(f.here.log.String(), "configuration reloaded")
	text, err := os.ReadFile(f.here.config)
	if err == nil {
		err = os.WriteFile(f.here.config, append(text, "audit: {principal_bytes: 2000000}\n"...), 0o600)
	}
	if err != nil {
		return err
	}
	select {
	case f.here.hangup <- os.Interrupt:
	default:
	}
	for limit := time.Now().Add(mostTime); strings.Count(f.here.log.String(), "configuration reloaded") == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			return errors.New("nothing was reloaded")
		}
	}
	return nil
}
