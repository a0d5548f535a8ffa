package quote_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/quote"
	"github.com/daypass/daypass/test/envtest"
)

func TestMain(m *testing.M) {
	envtest.Clear()
	m.Run()
}

// nasty are values with characters that are special in at least one of the formats.
var nasty = []string{
	"", "plain", "a b", " a", "a ", "it's", `"`, `\`, `\'`, `a\`, "'", "''", "=", "=ls", "a=b hostaddr=192.0.2.1", "$(id)", "`id`", "$HOME", "~", "!!", "#", "*", `\*`,
	"a\nhostaddr=192.0.2.1", "a\thostaddr=192.0.2.1", "a\vb", "a\fb", "a\r\nb", "a:b", `a\:b`, "a@evil.example/b?sslmode=disable#", "%00", "%41", "&host=evil", "a,b",
	"ö", "日本", "\x1b]0;x\a", "\u009b31m", "\u202egpj", "\xff\x9b", "\u2028", "\U000e0041", "a\x00b",
}

func seed(f *testing.F) {
	f.Helper()
	for _, value := range nasty {
		f.Add(value)
	}
}

// FuzzShell gives the word to a shell and reads it back.
func FuzzShell(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, value string) {
		quoted, err := quote.Shell(value, "end")
		if (err != nil) != (strings.IndexByte(value, 0) >= 0) {
			t.Fatalf("Shell(%q) = %v", value, err)
		}
		if err != nil {
			return
		}
		// The dot keeps the line ends at the end.
		out, err := exec.Command("sh", "-c", "set -- "+quoted+`; printf '%s.%s.%s' "$#" "$1" "$2"`).Output()
		if want := "2." + value + ".end"; err != nil || string(out) != want {
			t.Errorf("sh reads Shell(%q) = %s as %q, %v", value, quoted, out, err)
		}
	})
}

// FuzzConninfo has pgx read the connection string back: each value, and no more.
func FuzzConninfo(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, value string) {
		quoted, err := quote.Conninfo(value)
		if (err != nil) != (strings.IndexByte(value, 0) >= 0) {
			t.Fatalf("Conninfo(%q) = %v", value, err)
		}
		if err != nil || value == "" { // pgx takes an empty value for a missing one
			return
		}
		config, err := pgconn.ParseConfig("host=127.0.0.1 port=5439 sslmode=disable user=" + quoted + " password=" + quoted + " dbname=" + quoted + " application_name=" + quoted)
		if err != nil {
			t.Fatalf("Conninfo(%q) = %s: %v", value, quoted, err)
		}
		if config.Host != "127.0.0.1" || config.User != value || config.Password != value || config.Database != value || config.RuntimeParams["application_name"] != value || len(config.RuntimeParams) != 1 {
			t.Errorf("Conninfo(%q) = %s is read as %q, %q, %q, %q", value, quoted, config.User, config.Password, config.Database, config.RuntimeParams)
		}
	})
}

// FuzzURI has net/url and pgx read the URI back.
func FuzzURI(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, value string) {
		quoted, err := quote.URI(value)
		if (err != nil) != (strings.IndexByte(value, 0) >= 0) {
			t.Fatalf("URI(%q) = %v", value, err)
		}
		if err != nil || value == "" {
			return
		}
		uri := "postgresql://" + quoted + ":" + quoted + "@127.0.0.1:5439/" + quoted + "?sslmode=disable&application_name=" + quoted
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatalf("URI(%q) = %s: %v", value, quoted, err)
		}
		password, _ := u.User.Password()
		if u.Host != "127.0.0.1:5439" || u.User.Username() != value || password != value || u.Path != "/"+value || u.Query().Get("application_name") != value || u.Fragment != "" {
			t.Errorf("URI(%q) = %s is read as %+v", value, quoted, u)
		}
		config, err := pgconn.ParseConfig(uri)
		if err != nil {
			t.Fatalf("URI(%q) = %s: %v", value, quoted, err)
		}
		if config.Host != "127.0.0.1" || config.User != value || config.Password != value || config.RuntimeParams["application_name"] != value || len(config.RuntimeParams) != 1 {
			t.Errorf("URI(%q) = %s is read as %q, %q, %q", value, quoted, config.User, config.Password, config.RuntimeParams)
		}
	})
}

// FuzzPassFile has two readers look the password up: pgx, and libpq's rules.
func FuzzPassFile(f *testing.F) {
	for _, value := range nasty {
		f.Add("db.example.com", value, value)
		f.Add(value, "alice", "secret")
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, host, user, password string) {
		line, err := quote.PassFile(host, "5439", "dev", user, password)
		if err != nil {
			return
		}
		if strings.ContainsAny(line, "\r\n\x00") {
			t.Fatalf("PassFile(%q, %q, %q) = %q, which is no line", host, user, password, line)
		}
		if got, ok := libpqPassword(line, host, "5439", "dev", user); !ok || got != password {
			t.Errorf("libpq reads %q as %q, %v; want %q", line, got, ok, password)
		}
		if _, ok := libpqPassword(line, host+"x", "5439", "dev", user); ok {
			t.Errorf("%q is for any host", line)
		}
		path := filepath.Join(dir, "pgpass")
		if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		config, err := pgconn.ParseConfig("host=127.0.0.1 user=x dbname=dev sslmode=disable")
		if err != nil || config.Password != "" {
			t.Fatalf("a file of ours has no password for another: %+v, %v", config, err)
		}
		quotedHost, _ := quote.Conninfo(host)
		quotedUser, _ := quote.Conninfo(user)
		if strings.ContainsAny(host, ",/@") {
			return // to pgx these are several hosts, or a socket
		}
		config, err = pgconn.ParseConfig("host=" + quotedHost + " port=5439 user=" + quotedUser + " dbname=dev sslmode=disable passfile=" + path)
		if err != nil || config.Password != password {
			t.Errorf("pgx reads %q as %q, %v; want %q", line, config.Password, err, password)
		}
	})
}

// libpqPassword is passwordFromFile of libpq's fe-connect.c for one line.
func libpqPassword(line string, tokens ...string) (string, bool) {
	if line == "" || line[0] == '#' {
		return "", false
	}
	for _, token := range tokens {
		if strings.HasPrefix(line, "*:") {
			line = line[2:]
			continue
		}
		i, j := 0, 0
		for {
			if i == len(line) {
				return "", false
			}
			if line[i] == ':' && j == len(token) {
				i++
				break
			}
			if line[i] == '\\' {
				i++
			}
			if i == len(line) || j == len(token) || line[i] != token[j] {
				return "", false
			}
			i, j = i+1, j+1
		}
		line = line[i:]
	}
	var password strings.Builder
	for i := 0; i < len(line); i++ {
		if line[i] == '\\' && i+1 < len(line) {
			i++
		}
		password.WriteByte(line[i])
	}
	return password.String(), true
}

// invisible reports whether a letter or mark shows nothing (Unicode, Default_Ignorable_Code_Point).
func invisible(r rune) bool {
	for _, s := range [][2]rune{{0x34f, 0x34f}, {0x115f, 0x1160}, {0x17b4, 0x17b5}, {0x180b, 0x180f}, {0x3164, 0x3164}, {0xfe00, 0xfe0f}, {0xffa0, 0xffa0}, {0xe0100, 0xe01ef}} {
		if s[0] <= r && r <= s[1] {
			return true
		}
	}
	return false
}

// FuzzTerminal: the output is printable, harmless text is unchanged, and the writer gives the
// same result, however the text is split between calls. JSON keeps its value.
func FuzzTerminal(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, value string) {
		line, text := quote.Terminal(value), quote.TerminalText(value)
		harmless := utf8.ValidString(value)
		for _, r := range value {
			harmless = harmless && strconv.IsPrint(r) && !invisible(r)
		}
		if harmless != (line == value) {
			t.Errorf("Terminal(%q) = %q", value, line)
		}
		for _, r := range line {
			if !strconv.IsPrint(r) || invisible(r) {
				t.Errorf("Terminal(%q) = %q has %U in it", value, line, r)
			}
		}
		if got := strings.NewReplacer("\n", `\u000a`, "\t", `\u0009`).Replace(text); got != line {
			t.Errorf("TerminalText(%q) = %q", value, text)
		}
		for step := 1; step < 5; step++ {
			var out strings.Builder
			w := quote.NewWriter(&out)
			for rest := value; rest != ""; {
				n := min(step, len(rest))
				if written, err := fmt.Fprint(w, rest[:n]); written != n || err != nil {
					t.Fatal(written, err)
				}
				rest = rest[n:]
			}
			// A cut character at the very end is kept back.
			if !strings.HasPrefix(text, out.String()) || utf8.ValidString(value) && out.String() != text {
				t.Errorf("in pieces of %d, %q is written as %q, want %q", step, value, out.String(), text)
			}
		}
		document, err := json.Marshal(map[string]string{"k": value})
		if err != nil {
			t.Fatal(err)
		}
		var want, got any
		_ = json.Unmarshal(document, &want)
		if err := json.Unmarshal([]byte(quote.TerminalText(string(document))), &got); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is written as %s, which is %v, %v", document, quote.TerminalText(string(document)), got, err)
		}
	})
}

// TestOverrides: nothing that changes the direction of text reaches a terminal or a page.
func TestOverrides(t *testing.T) {
	for _, r := range "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069" {
		want := fmt.Sprintf(`ab\u%04xcd`, r)
		if got := quote.Terminal("ab" + string(r) + "cd"); got != want {
			t.Errorf("Terminal with %U = %s, want %s", r, got, want)
		}
		if got := string(quote.Page([]byte("<p>ab" + string(r) + "cd</p>\r\n"))); got != "<p>"+want+"</p>\n" {
			t.Errorf("Page with %U = %s", r, got)
		}
	}
}

// TestTerminal: sequences that terminals obey are escaped.
func TestTerminal(t *testing.T) {
	for value, want := range map[string]string{
		"\x1b[2J":        `\u001b[2J`,
		"\u009b2J":       `\u009b2J`,
		"\x9b2J":         `\x9b2J`,
		"a\u202eb":       `a\u202eb`,
		"a\u2066b":       `a\u2066b`,
		"a\u200bb":       `a\u200bb`,
		"a\u200db":       `a\u200db`,
		"a\u200eb":       `a\u200eb`,
		"a\u061cb":       `a\u061cb`,
		"a\u2060b":       `a\u2060b`,
		"a\ufeffb":       `a\ufeffb`,
		"a\u00adb":       `a\u00adb`,
		"a\u034fb":       `a\u034fb`, // a mark that shows nothing
		"a\u3164b":       `a\u3164b`, // a letter that shows nothing
		"a\ufe0fb":       `a\ufe0fb`,
		"a\x00b":         `a\u0000b`,
		"a\rb\nc\td\x7f": `a\u000db\u000ac\u0009d\u007f`,
		"a\u2028b":       `a\u2028b`,
		"\U000e0041":     `\udb40\udc41`,
		"a\u00a0b":       `a\u00a0b`,
		"\ufffd":         "\ufffd",
		`C:\x1b`:         `C:\x1b`,
		"Zoë 日本 ✓":       "Zoë 日本 ✓",
	} {
		if got := quote.Terminal(value); got != want {
			t.Errorf("Terminal(%q) = %s, want %s", value, got, want)
		}
	}
}

// TestPaint: the Writer lets the colours through that it made, and no others.
func TestPaint(t *testing.T) {
	var out strings.Builder
	w := quote.NewPainter(&out)
	other := quote.NewPainter(&out)
	fmt.Fprintf(w, "%s: %s %s|", w.Paint(quote.Red, "err\x1b[32mor"), "\x1b[31mno", other.Paint(quote.Bold, "no"))
	key := strings.TrimSuffix(w.Paint(quote.Red, "x"), "0m")
	fmt.Fprint(w, key[strings.LastIndex(key, "\x1b"):]+"2J")
	got := out.String()
	if !strings.HasPrefix(got, "\x1b[31merr\\u001b[32mor\x1b[0m: \\u001b[31mno \\u001b") || !strings.HasSuffix(got, "|2J") || strings.Count(got, "\x1b") != 2 {
		t.Errorf("written as %q", got)
	}
	out.Reset()
	w = quote.NewWriter(&out)
	if fmt.Fprint(w, w.Paint(quote.Red, "a\nb")); out.String() != `a\u000ab` {
		t.Errorf("without colours, written as %q", out.String())
	}
}

func TestShell(t *testing.T) {
	for in, want := range map[string]string{
		"/tmp/a-b_c.d": "/tmp/a-b_c.d",
		"":             "''",
		"a b":          "'a b'",
		"it's":         `'it'\''s'`,
		"$(x)":         "'$(x)'",
		"~":            "'~'",
		"=ls":          "'=ls'",
		"a=b":          "a=b",
	} {
		if got, err := quote.Shell(in); err != nil || got != want {
			t.Errorf("Shell(%q) = %s, %v, want %s", in, got, err, want)
		}
	}
}

func TestPassFileRefuses(t *testing.T) {
	for _, fields := range [][2]string{
		{"*", "x"}, {"#db", "x"}, {"", "x"}, {" db", "x"}, {"db", ""}, {"db", "x "}, {"db", "x\nevil:5432:*:*:y"}, {"db", "x\r"}, {"db", "\x00"}, {"db", "*"}, {"d\u0085b", "x"}, {"db", "\xff"},
	} {
		if line, err := quote.PassFile(fields[0], "5439", "dev", "alice", fields[1]); err == nil {
			t.Errorf("PassFile(%q, …, %q) = %q", fields[0], fields[1], line)
		}
	}
}
