//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLedgerExcusesOnlyWhatAFaultExplains(t *testing.T) {
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	for _, row := range []struct {
		name       string
		class      class
		begin, end float64
		excused    bool
	}{
		{"over before it", classLogon, 0, 9.9, false},
		{"cut short by it", classLogon, 9, 11, true},
		{"within it", classLogon, 12, 13, true},
		{"around it", classLogon, 5, 30, true},
		{"begun in the grace", classLogon, 21, 22, true},
		{"begun after the grace", classLogon, 22.5, 23, false},
		{"of a class it leaves alone", classCall, 12, 13, false},
	} {
		now := at(10)
		l := newLedger(func() time.Time { return now }, func(string, ...any) {})
		e := l.open("fault", classLogon|classSession, 2*time.Second, time.Time{})
		now = at(20)
		l.close(e)
		now = at(row.end)
		if got := l.failed(row.class, "work", at(row.begin), io.EOF); got != row.excused {
			t.Errorf("%s: excused %v, want %v", row.name, got, row.excused)
		}
		if want := map[bool]int{true: 0, false: 1}[row.excused]; l.total != want {
			t.Errorf("%s: %d violations, want %d", row.name, l.total, want)
		}
	}
}

func TestLedgerMeasuresRecovery(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	l := newLedger(func() time.Time { return now }, func(string, ...any) {})
	e := l.open("fault", classLogon, 5*time.Second, time.Time{})
	now = now.Add(time.Second)
	l.close(e)
	begin := now.Add(time.Second)
	now = begin.Add(time.Second)
	l.failed(classLogon, "logon", begin, io.EOF)
	l.done(classLogon, "logon", begin.Add(-3*time.Second)) // it began before the end, so it shows nothing
	if e.late != time.Second || e.recovered != 0 {
		t.Errorf("late %v, recovered %v", e.late, e.recovered)
	}
	l.done(classLogon, "logon", begin)
	if e.recovered != 2*time.Second {
		t.Errorf("recovered %v, want 2s", e.recovered)
	}
}

func TestGoroutinesOfADump(t *testing.T) {
	dump := `SIGQUIT: quit
PC=0x47 m=0 sigcode=0

goroutine 0 gp=0x1 m=0 mp=0x2 [idle]:
runtime.futex()

goroutine 1 gp=0xc000002380 m=nil [select, 3 minutes]:
main.main()
	/x/main.go:1 +0x1

goroutine 2 gp=0xc0 m=nil [force gc (idle)]:
runtime.gopark()
created by runtime.init.7 in goroutine 1
	/x/proc.go:1

goroutine 40 [IO wait]:
net.(*conn).Read()
created by example.com/gateway.(*session).start in goroutine 7
	/x/session.go:1 +0x1

goroutine 41 [IO wait]:
net.(*conn).Read()
created by example.com/gateway.(*session).start in goroutine 7
	/x/session.go:1 +0x1

rax    0xca
`
	got := goroutines([]byte(dump))
	if len(got) != 2 || got["main"] != 1 || got["example.com/gateway.(*session).start"] != 2 {
		t.Errorf("got %v", got)
	}
	before := map[string]int{"main": 1, "example.com/gateway.(*session).start": 1}
	if grown := more(got, before); !slices.Equal(grown, []string{"example.com/gateway.(*session).start +1"}) {
		t.Errorf("grown: %v", grown)
	}
}

func TestFinderFindsWhatIsLeftOfASecret(t *testing.T) {
	var password string
	for i := range 50 {
		password += fmt.Sprintf("%x-", i*i+1000)
	}
	for text, want := range map[string]int{
		`{"message":"nothing here"}`:       0,
		`password="` + password + `"`:      1,
		`cut "` + password[:60] + `…"`:     1,
		`tail ` + password[80:]:            1,
		`middle ` + password[50:100]:       0, // the finder is known to miss this
		`key ` + secretKey:                 1,
		`two ` + password + " " + password: 2,
	} {
		l := newLedger(time.Now, func(string, ...any) {})
		f := newFinder([]string{password})
		f.look([]byte(text), l, "log")
		if f.found != want || l.total != want {
			t.Errorf("%q: found %d, want %d", text, f.found, want)
		}
	}
}

func TestForgeriesAreNeverTheCredential(t *testing.T) {
	p := &pass{logon: "IAM:u00", password: strings.Repeat("Aa0-_", 50)}
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		if user, password, how := forge(r, p); user == p.logon && password == p.password {
			t.Fatalf("%s changed nothing", how)
		}
	}
}

// echo returns the address of a server that sends back what it receives.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(conn, conn)
				conn.(*net.TCPConn).CloseWrite()
			}()
		}
	}()
	return l.Addr().String()
}

func TestProxyCarriesAndCuts(t *testing.T) {
	target := echo(t)
	p, err := newProxy(func() string { return target })
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	p.change(func(w *weather) { w.chop, w.delay = 100, time.Microsecond })
	conn, err := net.Dial("tcp", p.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := bytes.Repeat([]byte("0123456789"), 1000)
	go func() {
		conn.Write(sent)
		conn.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes came back, %v", len(got), err)
	}

	p.calm()
	second, err := net.Dial("tcp", p.address())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, err := second.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(second, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p.change(func(w *weather) { w.stall = make(chan struct{}) })
	for _, l := range p.some(rand.New(rand.NewPCG(0, 0)), 2) {
		l.cut()
	}
	if _, err := second.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("a cut connection reads %v, want a reset", err)
	}
}

func TestReportGoesBetweenItsMarks(t *testing.T) {
	got, err := replaceReport("# Title\n\n"+markBegin+"old\n"+markEnd+"\nmore\n", markBegin, markEnd, "new\n")
	if want := "# Title\n\n" + markBegin + "\nnew\n\n" + markEnd + "\nmore\n"; err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := replaceReport("# Title\n"+markBegin, markBegin, markEnd, "new"); err == nil {
		t.Error("a file without both marks was taken")
	}
}
