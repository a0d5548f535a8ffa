package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/audit"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func fixed() time.Time { return noon }

// checkString compares our encoding with encoding/json's: both must decode to the same text.
func checkString(t *testing.T, s string) {
	t.Helper()
	got := audit.AppendString(nil, s)
	var back string
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatalf("AppendString(%q) = %s: %v", s, got, err)
	}
	for _, r := range string(got) {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r) {
			t.Fatalf("AppendString(%q) = %q, with %U in it", s, got, r)
		}
	}
	if !utf8.Valid(got) {
		t.Fatalf("AppendString(%q) = %q, which is not UTF-8", s, got)
	}
	if len(got) > audit.MaxString+2 {
		t.Fatalf("AppendString of %d bytes makes %d", len(s), len(got))
	}
	if cut, ok := strings.CutSuffix(back, fmt.Sprintf("… (%d bytes)", len(s))); ok && len(s) > audit.MaxString/6 {
		if !strings.HasPrefix(string([]rune(s)), strings.TrimRight(cut, "\ufffd")) {
			t.Fatalf("AppendString of %d bytes is not a part of it: %q", len(s), cut)
		}
		return
	}
	reference, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var want string
	if err := json.Unmarshal(reference, &want); err != nil || back != want {
		t.Fatalf("AppendString(%q) reads as %q, encoding/json's as %q (%v)", s, back, want, err)
	}
}

func TestAppendString(t *testing.T) {
	for _, row := range []struct{ in, want string }{
		{"", `""`},
		{"plain", `"plain"`},
		{`a"b\c/d`, `"a\"b\\c/d"`},
		{"a\nb\rc\td", `"a\nb\rc\td"`},
		{"\x00\x1b[2J\x7f", `"\u0000\u001b[2J\u007f"`},
		{"<a&b>", `"<a&b>"`},
		{"é日本😀", `"é日本😀"`},
		{"\xff\xc3(\xed\xa0\x80", `"\ufffd\ufffd(\ufffd\ufffd\ufffd"`},
		{"\ufffd", "\"\ufffd\""},
		{"\u0085\u009b\u00a0", "\"\\u0085\\u009b\u00a0\""},
		{"\u2028\u2029\u202e\u2066", `"\u2028\u2029\u202e\u2066"`},
	} {
		if got := string(audit.AppendString(nil, row.in)); got != row.want {
			t.Errorf("AppendString(%q) = %s, want %s", row.in, got, row.want)
		}
		checkString(t, row.in)
	}
	for c := range 256 {
		checkString(t, "a"+string([]byte{byte(c)})+"b")
	}
	for n := audit.MaxString - 5; n < audit.MaxString+5; n++ {
		checkString(t, strings.Repeat("x", n)+"€€")
		checkString(t, strings.Repeat("\xff", n))
		checkString(t, strings.Repeat("\xbf", n))
	}
}

// TestPasswordsAreRedacted: passwords are redacted, in whichever field they are.
func TestPasswordsAreRedacted(t *testing.T) {
	w, path := open(t)
	password := "2D3ShE2iAScES" + strings.Repeat("Ab0_", 60)
	check(t, put(w, audit.LogonRecord{User: password[:200], SQLState: "28000", Message: `failed for user "` + password + `"`}))
	check(t, put(w, audit.CallRecord{UserAgent: password, Request: []audit.Field{
		audit.String("dbUser", password), audit.Strings("dbGroups", []string{"a", password})}}))
	for _, line := range readLines(t, path) {
		if text := fmt.Sprint(line); strings.Contains(text, "Ab0_") || !strings.Contains(text, "[redacted]") {
			t.Errorf("the line has a password: %v", line)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("\xff\x00\u2028\"\\")
	f.Add(strings.Repeat("€", 2000))
	f.Fuzz(checkString)
}

// FuzzLines puts hostile text in every place of every record.
func FuzzLines(f *testing.F) {
	f.Add("plain", "other", int64(1))
	f.Add("\xff\"}\n{", "\u2028\\", int64(-1))
	f.Fuzz(func(t *testing.T, a, b string, n int64) {
		w, path := open(t)
		list := []string{a, b, a + b}
		tls := &audit.TLS{Version: a, CipherSuite: b, ServerName: a}
		at := time.Unix(n%(1<<40), 0)
		address := netip.AddrPortFrom(netip.IPv6LinkLocalAllNodes().WithZone(a), uint16(n))
		check(t, put(w, audit.CallRecord{
			EventID: a, Time: at, EventSource: b, EventName: a, Region: b, AccountID: a, RequestID: b,
			Identity: audit.Identity{
				Type: a, PrincipalID: b, ARN: a, AccountID: b, AccessKeyID: a, UserName: b, IdentityProvider: a,
				Session: &audit.SessionContext{Issuer: &audit.SessionIssuer{Type: a, PrincipalID: b, ARN: a, AccountID: b, UserName: a}, FederatedProvider: b, SourceIdentity: a, CreationDate: at},
			},
			Source: address.Addr(), UserAgent: a, TLS: tls, ErrorCode: b, ErrorMessage: a, Reason: b, Omitted: n,
			Request:      []audit.Field{audit.String(a, b), audit.Strings(b, list), audit.Int(a, n), audit.Bool(b, n > 0), audit.Object(a, audit.Time(b, at), audit.Hidden(a)), audit.Object(b)},
			Response:     []audit.Field{},
			CredentialID: a,
			Decisions:    []audit.Decision{{a, b, a, b, a, b, int(n)}, {}},
		}))
		check(t, put(w, audit.LogonRecord{
			EventID: a, Time: at, SessionID: b, Client: address, TLS: tls, User: a, Database: b, ApplicationName: a, CredentialID: b,
			Principal: a, Cluster: b, DBUser: a, DBGroups: list, SessionRole: b, ProcessID: uint32(n), SQLState: a, Message: b, Reason: a, Took: time.Duration(n),
		}))
		check(t, put(w, audit.SessionRecord{
			EventID: a, Time: at, SessionID: b, Client: address, TLS: tls, CredentialID: a, Principal: "arn:aws:iam::" + a + ":user/" + b, Cluster: b,
			Database: a, DBUser: b, DBGroups: list, SessionRole: a, ProcessID: uint32(n), ApplicationName: b, Started: at, Duration: time.Duration(n), BytesFromClient: n,
			BytesToClient: n, Reason: a, SQLState: b,
		}))
		check(t, w.Close())
		records := readLines(t, path)
		if len(records) != 3 {
			t.Fatalf("%d lines, want 3", len(records))
		}
		if a != "" && len(a)+len(b) < 100 {
			if got := records[0]["eventName"]; got != string([]rune(a)) {
				t.Errorf("eventName = %q, want %q", got, a)
			}
		}
	})
}

// TestLinesAreBounded fills all fields of every record, and each field by itself, with text
// that grows most when it is written. A line stays within MaxLine and still names its
// principal.
func TestLinesAreBounded(t *testing.T) {
	const arn = "arn:aws:iam::123456789012:user"
	whole := arn + "/" + strings.Repeat("p", 510) + "/" + strings.Repeat("u", 64) // the longest that AWS allows
	for _, fill := range []string{"\x01", "\"", "\xff", "\u202e", "€", "x"} {
		long := strings.Repeat(fill, 100_000)
		for n := range 40 {
			w, path := open(t)
			nth := 0
			// text is long for the field number n-1, and for all of them when n is 0.
			text := func(field string) string {
				if nth++; n == 0 || nth == n {
					return long
				}
				return field
			}
			list := func() []string { return slices.Repeat([]string{text("analysts")}, 1000) }
			fields := func() []audit.Field {
				var all []audit.Field
				for i := range 200 {
					all = append(all, audit.String(fmt.Sprint(i, text("n")), text("v")))
				}
				return append(all, audit.Strings("list", list()), audit.Object("object", audit.Strings(text("list"), list())))
			}
			principal := whole
			if n == 0 {
				principal = long
			}
			tls := &audit.TLS{Version: text("TLSv1.3"), CipherSuite: text("x"), ServerName: text("h")}
			decision := audit.Decision{Action: text("a:B"), Resource: text("arn:"), Effect: "Allow", Layer: text("l"), Policy: text("p"), Sid: text("s")}
			check(t, put(w, audit.CallRecord{
				EventName: text("AssumeRole"), Identity: audit.Identity{ARN: principal, UserName: text("u"), AccessKeyID: text("AKIA"),
					PrincipalID: text("AIDA"), IdentityProvider: text("i"), Session: &audit.SessionContext{SourceIdentity: text("s"), FederatedProvider: text("f"),
						Issuer: &audit.SessionIssuer{ARN: principal, UserName: text("u")}}},
				UserAgent: text("cli"), TLS: tls, ErrorCode: text("Code"), ErrorMessage: text("m"), Reason: text("r"), RequestID: text("id"),
				Request: fields(), Response: fields(), CredentialID: text("01KDV"),
				Decisions: append(slices.Repeat([]audit.Decision{decision}, 1000), audit.Decision{Action: "last:One", Effect: "Deny"}),
			}))
			check(t, put(w, audit.LogonRecord{
				TLS: tls, User: text("u"), Database: text("d"), ApplicationName: text("a"), Principal: principal, Cluster: text("c"), CredentialID: text("01KDV"),
				DBUser: text("alice"), DBGroups: list(), SessionRole: text("IAM:alice"), ProcessID: 1<<32 - 1, SQLState: text("28000"), Message: text("m"), Reason: text("r"),
			}))
			check(t, put(w, audit.SessionRecord{
				TLS: tls, Database: text("d"), ApplicationName: text("a"), Principal: principal, Cluster: text("c"), CredentialID: text("01KDV"),
				DBUser: text("alice"), DBGroups: list(), SessionRole: text("IAM:alice"), ProcessID: 1<<32 - 1, SQLState: text("57P01"), Reason: text("r"),
			}))
			check(t, w.Close())
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range bytes.SplitAfter(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")) {
				if len(line) > audit.MaxLine {
					t.Fatalf("field %d of %q: the line %d has %d bytes, want %d at most", n, fill, i, len(line), audit.MaxLine)
				}
			}
			for i, record := range readLines(t, path) {
				if got := record["userIdentity"].(map[string]any)["arn"]; n > 0 && got != whole {
					t.Errorf("field %d of %q: the line %d has the principal %v", n, fill, i, got)
				}
				if more, _ := record["additionalEventData"].(map[string]any); i == 0 {
					list, _ := more["decisions"].([]any)
					if len(list) == 0 || list[len(list)-1].(map[string]any)["action"] != "last:One" {
						t.Errorf("field %d of %q: the decision that counts is not there: %v", n, fill, more)
					}
				}
			}
		}
	}
}

// TestSize: what writes a record returns the length of its line, and Size is at least that, and not
// much more.
func TestSize(t *testing.T) {
	w, path := open(t)
	w.SetOrigin("123456789012", "ap-northeast-1")
	call := audit.CallRecord{EventName: "GetClusterCredentials", UserAgent: "\x01\"", Request: []audit.Field{audit.String("dbUser", "alice")}}
	logon := audit.LogonRecord{User: "IAM:alice", DBGroups: []string{"a"}, Message: strings.Repeat("\x01", 9000)}
	end := audit.SessionRecord{DBUser: "alice", Started: noon, Reason: "client closed"}
	var written [3]int
	var errs [3]error
	written[0], errs[0] = w.Call(&call)
	written[1], errs[1] = w.Logon(&logon)
	written[2], errs[2] = w.SessionEnd(&end)
	check(t, errors.Join(errs[:]...))
	check(t, w.Close())
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var lines [3]int
	for i := range lines {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		lines[i], data = len(line)+1, rest
	}
	if written != lines {
		t.Errorf("the lines have %d bytes, and what wrote them returned %d", lines, written)
	}
	for i, size := range []int{call.Size(), logon.Size()} {
		if n := lines[i]; size < n || size > n+50 {
			t.Errorf("line %d has %d bytes, Size() = %d", i, n, size)
		}
	}
}

// TestGolden shows one complete line of each kind.
func TestGolden(t *testing.T) {
	w, path := open(t)
	w.SetOrigin("123456789012", "us-east-1")
	tls := &audit.TLS{Version: "TLSv1.3", CipherSuite: "TLS_AES_128_GCM_SHA256", ServerName: "db.example.com"}
	const credential, session = "01KDVZ2M00T5BVDGQH2Y7CJ4XR", "5f0c8e1a"
	client := netip.MustParseAddrPort("192.0.2.7:50432")
	check(t, put(w, audit.CallRecord{
		EventID: "a6a0a5a4-0001-4000-8000-000000000001", EventSource: "redshift.amazonaws.com", EventName: "GetClusterCredentials",
		RequestID: "a6a0a5a4-aaaa-4000-8000-000000000001",
		Identity: audit.Identity{
			Type: "AssumedRole", PrincipalID: "AROAEXAMPLEEXAMPLE000:ci", ARN: "arn:aws:sts::123456789012:assumed-role/etl/ci", AccountID: "123456789012",
			AccessKeyID: "ASIAEXAMPLEEXAMPLE000", Session: &audit.SessionContext{
				Issuer: &audit.SessionIssuer{
					Type: "Role", PrincipalID: "AROAEXAMPLEEXAMPLE000", ARN: "arn:aws:iam::123456789012:role/etl", AccountID: "123456789012", UserName: "etl",
				},
				CreationDate: noon, SourceIdentity: "ana",
			},
		},
		Source: client.Addr(), UserAgent: "aws-cli/2.15", TLS: tls,
		Request: []audit.Field{
			audit.String("clusterIdentifier", "examplecluster"), audit.String("dbUser", "alice"), audit.Strings("dbGroups", []string{"analysts"}),
			audit.Int("durationSeconds", 900), audit.Bool("autoCreate", true),
		},
		Response:     []audit.Field{audit.String("dbUser", "IAMA:alice"), audit.Hidden("dbPassword"), audit.Time("expiration", noon.Add(15*time.Minute))},
		CredentialID: credential,
		Decisions: []audit.Decision{
			{Action: "redshift:GetClusterCredentials", Resource: "arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/alice", Effect: "Allow", Layer: "identity-based policy", Policy: "etl", Sid: "Logon"},
			{Action: "redshift:JoinGroup", Resource: "arn:aws:redshift:us-east-1:123456789012:dbgroup:examplecluster/analysts", Effect: "Allow", Layer: "identity-based policy", Policy: "etl", Index: 2},
		},
	}))
	check(t, put(w, audit.CallRecord{
		EventID: "a6a0a5a4-0001-4000-8000-000000000002", EventSource: "redshift.amazonaws.com", EventName: "GetClusterCredentials",
		RequestID: "a6a0a5a4-aaaa-4000-8000-000000000002", Identity: audit.Identity{AccessKeyID: "AKIANOBODY"}, Source: client.Addr(),
		ErrorCode: "InvalidClientTokenId", ErrorMessage: "The security token included in the request is invalid.", Reason: "no such access key", Omitted: 41,
	}))
	check(t, put(w, audit.LogonRecord{
		EventID: "a6a0a5a4-0001-4000-8000-000000000003", SessionID: session, Client: client, TLS: tls, User: "IAMA:alice", Database: "dev",
		ApplicationName: "psql", CredentialID: credential, Principal: "arn:aws:iam::123456789012:user/team/ana", Cluster: "examplecluster", DBUser: "alice",
		DBGroups: []string{"analysts"}, AutoCreate: true, SessionRole: "IAM:alice:analysts", Upstream: "new", ProcessID: 4711, Took: 12 * time.Millisecond,
	}))
	check(t, put(w, audit.LogonRecord{
		EventID: "a6a0a5a4-0001-4000-8000-000000000004", SessionID: "5f0c8e1b", Client: client, User: "IAM:alice", Database: "dev",
		SQLState: "28000", Message: `IAM authentication failed for user "IAM:alice"`, Reason: "credential: forged: key a3f82ed3e8f061aa did not sign this", Omitted: 3987,
	}))
	check(t, put(w, audit.SessionRecord{
		EventID: "a6a0a5a4-0001-4000-8000-000000000005", SessionID: session, Client: client, TLS: tls, CredentialID: credential,
		Principal: "arn:aws:iam::123456789012:user/team/ana", Cluster: "examplecluster", Database: "dev", DBUser: "alice", DBGroups: []string{"analysts"},
		SessionRole: "IAM:alice:analysts", ProcessID: 4711, ApplicationName: "psql", Started: noon, Duration: 90 * time.Second, BytesFromClient: 120, BytesToClient: 4096,
		Reason: "client closed",
	}))
	check(t, w.Close())
	got, err := os.ReadFile(path)
	check(t, err)
	golden := filepath.Join("testdata", "golden.jsonl")
	want, err := os.ReadFile(golden)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("lines (want those of %s, %v):\n%s", golden, err, got)
	}
}

func TestIdentityOfPrincipal(t *testing.T) {
	for arn, want := range map[string]string{
		"": "map[type:Unknown]",
		"arn:aws:iam::123456789012:user/team/ana":            "map[accountId:123456789012 arn:arn:aws:iam::123456789012:user/team/ana type:IAMUser userName:ana]",
		"arn:aws:sts::123456789012:assumed-role/etl/ci":      "map[accountId:123456789012 arn:arn:aws:sts::123456789012:assumed-role/etl/ci type:AssumedRole]",
		"arn:aws:iam::123456789012:root":                     "map[accountId:123456789012 arn:arn:aws:iam::123456789012:root type:Root]",
		"nonsense":                                           "map[arn:nonsense type:Unknown]",
		"arn:aws:sts::123456789012:federated-user/somewhere": "map[accountId:123456789012 arn:arn:aws:sts::123456789012:federated-user/somewhere type:FederatedUser]",
	} {
		w, path := open(t)
		check(t, put(w, audit.SessionRecord{Principal: arn}))
		check(t, w.Close())
		if got := fmt.Sprint(readLines(t, path)[0]["userIdentity"]); got != want {
			t.Errorf("userIdentity of %q = %s, want %s", arn, got, want)
		}
	}
}

func TestEventIDsAreUUIDs(t *testing.T) {
	w, path := open(t)
	for range 100 {
		check(t, put(w, audit.CallRecord{EventName: "A"}))
	}
	check(t, w.Close())
	seen := map[any]bool{}
	for _, r := range readLines(t, path) {
		id, _ := r["eventID"].(string)
		if len(id) != 36 || id[14] != '4' || !strings.ContainsRune("89ab", rune(id[19])) || seen[id] {
			t.Errorf("eventID %q is not a new random UUID", id)
		}
		seen[id] = true
	}
}

func open(t testing.TB) (*audit.Writer, string) {
	t.Helper()
	dir := t.TempDir()
	w, err := audit.Open(dir, fixed)
	check(t, err)
	t.Cleanup(func() { _ = w.Close() })
	return w, filepath.Join(dir, "2026-01-01.jsonl")
}

// readLines reads a log in which every line must be JSON.
func readLines(t testing.TB, path string) []map[string]any {
	t.Helper()
	data, err := os.ReadFile(path)
	check(t, err)
	if len(data) > 0 && data[len(data)-1] != '\n' {
		t.Fatalf("the last line of %s is not ended", path)
	}
	var records []map[string]any
	for line := range bytes.Lines(data) {
		var r map[string]any
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		records = append(records, r)
	}
	return records
}

// put writes the record of a call.
// put writes the record of a call, a logon or the end of a session.
func put[R audit.CallRecord | audit.LogonRecord | audit.SessionRecord](w *audit.Writer, record R) (err error) {
	switch r := any(&record).(type) {
	case *audit.CallRecord:
		_, err = w.Call(r)
	case *audit.LogonRecord:
		_, err = w.Logon(r)
	case *audit.SessionRecord:
		_, err = w.SessionEnd(r)
	}
	return err
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func BenchmarkAppendString(b *testing.B) {
	buffer := make([]byte, 0, 256)
	for b.Loop() {
		buffer = audit.AppendString(buffer[:0], "arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/alice")
	}
}
