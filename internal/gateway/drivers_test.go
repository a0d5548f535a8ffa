package gateway_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/daypass/daypass/test/pgtest"
)

// exchange is what one of Redshift's drivers sends, and must receive, from its start-up message
// on. Each file in testdata/drivers names its source. A string holds bytes, one per code point.
// The part of the files about the API is for the tests of cmd/daypass.
type exchange struct {
	Driver   string            `json:"driver"`
	Startup  [][2]string       `json:"startup"`
	Dropped  []string          `json:"dropped"`  // of Startup; the database never sees them
	Settings map[string]string `json:"settings"` // that the session must have
	Session  []struct {
		Send   string `json:"send"`
		Answer string `json:"answer"` // the message types
		Error  string `json:"error"`  // the SQLSTATE of the 'E' in it
	} `json:"session"`
}

// TestDrivers replays Redshift's drivers against PostgreSQL as it is installed.
func TestDrivers(t *testing.T) {
	files, err := filepath.Glob("testdata/drivers/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded drivers: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var e exchange
			if err := json.Unmarshal(text, &e); err != nil {
				t.Fatal(err)
			}
			replay(t, &e)
		})
	}
}

func replay(t *testing.T, e *exchange) {
	f := newFixture(t, nil)
	pg := pgtest.Start(t)
	cluster := f.real(pg)
	grant := f.grant(pg.Name("driver"))
	var params []string
	for _, p := range e.Startup {
		switch p[0] {
		case "user":
			p[1] = grant.LogonName()
		case "database":
			p[1] = cluster.Database
		}
		params = append(params, p[0], p[1])
	}
	// They offer no ALPN, and JDBC and ODBC always ask with an SSLRequest.
	c := f.dialTLS()
	c.send(startup(version30, params...))
	// The password request comes first. _pq_.compression calls for NegotiateProtocolVersion, but
	// the gateway does not send it, because JDBC would treat it as a broken connection.
	if got := c.read(len(askPassword)); got != string(askPassword) {
		t.Fatalf("answer to the start-up message = %q, want the question for a password", got)
	}
	c.send(passwordMessage(f.mint(grant)))
	status := map[string]string{}
	var types []byte
	for kind := byte(0); kind != 'Z'; {
		var body []byte
		kind, body = c.message()
		types = append(types, kind)
		switch kind {
		case 'E':
			t.Fatalf("refused: %v", errorFields(body))
		case 'S':
			parts := strings.Split(string(body), "\x00")
			status[parts[0]] = parts[1]
		}
	}
	if types[0] != 'R' || strings.Trim(string(types), "RSKZ") != "" {
		t.Errorf("messages after the password = %s, want R, S, K and Z alone", types)
	}
	// Parameters that the drivers insist on, or that they cannot parse.
	if v := status["server_version"]; v == "" || strings.Trim(v, "0123456789.") != "" {
		t.Errorf("server_version = %q, want a bare number", v)
	}
	if v, there := status["server_protocol_version"]; there {
		t.Errorf("server_protocol_version = %q: it would switch to Redshift's binary protocol", v)
	}
	if status["client_encoding"] != "UTF8" || !strings.HasPrefix(status["DateStyle"], "ISO") ||
		status["standard_conforming_strings"] != "on" || status["integer_datetimes"] != "on" {
		t.Errorf("parameter status = %v", status)
	}
	for _, step := range e.Session {
		c.send(latin1(step.Send))
		var answer []byte
		for len(answer) == 0 || answer[len(answer)-1] != 'Z' {
			kind, body := c.message()
			if kind == 'S' {
				continue // SET application_name reports itself
			}
			answer = append(answer, kind)
			if kind == 'E' && errorFields(body)['C'] != step.Error {
				t.Errorf("answer to %q: %v, want SQLSTATE %q", step.Send, errorFields(body), step.Error)
			}
		}
		if string(answer) != step.Answer {
			t.Errorf("answer to %q = %s, want %s", step.Send, answer, step.Answer)
		}
	}

	// Query the other settings in a session that began in the same way.
	conn := f.connect(grant, cluster.Database, withoutStructural(params)...)
	for name, want := range e.Settings {
		if got := value[string](t, conn, "SELECT current_setting($1)", name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	for _, name := range e.Dropped {
		if !slices.Contains(params, name) {
			t.Errorf("%s is not in the start-up message", name)
		}
		if got := value[*string](t, conn, "SELECT current_setting($1, true)", name); got != nil {
			t.Errorf("%s = %q in the database, want it dropped", name, *got)
		}
	}
}

// withoutStructural drops the parameters of a start-up message that a client sets by itself, and
// keeps the settings.
func withoutStructural(params []string) []string {
	var settings []string
	for i := 0; i < len(params); i += 2 {
		if params[i] != "user" && params[i] != "database" {
			settings = append(settings, params[i], params[i+1])
		}
	}
	return settings
}

// latin1 converts a string with one code point per byte back to the bytes.
func latin1(s string) []byte {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		b = append(b, byte(r))
	}
	return b
}
