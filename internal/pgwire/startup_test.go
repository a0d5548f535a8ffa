package pgwire_test

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/pgwire"
)

const (
	version30 = pgwire.Version30
	version32 = pgwire.Version32
)

// startup returns a start-up packet, including its length.
func startup(version uint32, params ...string) []byte {
	var b []byte
	for _, p := range params {
		b = append(append(b, p...), 0)
	}
	return pgwire.AppendPacket(nil, version, append(b, 0))
}

func be32(n uint32) string { return string(binary.BigEndian.AppendUint32(nil, n)) }

// parsed is a start-up message as the gateway understands it.
type parsed struct {
	Version        uint32
	User, Database string
	Params         [][2]string
	Redshift       bool
	Negotiation    []byte
}

// parseStartup parses a start-up packet without its length. state is the SQLSTATE
// of a refusal.
func parseStartup(packet []byte) (p parsed, state string) {
	m, err := pgwire.ParseStartup(packet)
	if err != nil {
		return parsed{}, err.SQLState
	}
	p = parsed{Version: m.Version, User: m.User, Database: m.Database, Redshift: m.Redshift, Negotiation: m.AppendNegotiation(nil)}
	for _, given := range m.Params {
		p.Params = append(p.Params, [2]string{given.Name, given.Value})
	}
	return p, ""
}

func TestNegotiateProtocolVersion(t *testing.T) {
	for _, test := range []struct {
		name    string
		packet  []byte
		version uint32
		want    []byte
	}{
		{"3.0", startup(version30, "user", "u"), version30, nil},
		{"3.2", startup(version32, "user", "u"), version32, nil},
		{"3.3", startup(3<<16|3, "user", "u"), version32, message('v', be32(version32)+be32(0))},
		{"3.9999", startup(3<<16|9999, "user", "u"), version32, message('v', be32(version32)+be32(0))},
		{"options", startup(version30, "user", "u", "_pq_.a", "1", "_pq_.b", ""), version30,
			message('v', be32(version30)+be32(2)+"_pq_.a\x00_pq_.b\x00")},
		{"option of a Redshift driver", startup(version30, "user", "u", "_pq_.compression", "zstd:1", "client_protocol_version", "2"), version30, nil},
		{"3.3 of a Redshift driver", startup(3<<16|3, "user", "u", "client_protocol_version", "2"), version32, nil},
	} {
		p, state := parseStartup(test.packet[4:])
		if state != "" || p.Version != test.version || !bytes.Equal(p.Negotiation, test.want) {
			t.Errorf("%s: version %#x, negotiation %q, %s, want %#x, %q", test.name, p.Version, p.Negotiation, state, test.version, test.want)
		}
	}
}

func TestParameters(t *testing.T) {
	for _, test := range []struct {
		name  string
		given []string
		want  string
	}{
		{"settings", []string{"application_name", "psql", "client_encoding", "UTF8", "app.tenant", "7"}, "application_name=psql client_encoding=UTF8 app.tenant=7"},
		{"what Redshift's drivers add", []string{"client_protocol_version", "2", "driver_version", "x", "os_version", "y", "plugin_name", "none",
			"driver_discovery_version", "1", "idp_type", "a", "provider_name", "b", "token_type", "c", "identity_namespace", "d",
			"idc_client_display_name", "e", "application_name", "dbt"}, "application_name=dbt"},
		{"what their next version may add", []string{"new_parameter", "2", "client_protocol_version", "2", "DateStyle", "ISO", "TimeZone", "UTC"}, "DateStyle=ISO TimeZone=UTC"},
		{"unknown settings of others", []string{"new_parameter", "2"}, "new_parameter=2"},
		{"options first", []string{"search_path", "b", "options", "-c search_path=a --lock-timeout=5 -cgeqo=off"}, "search_path=a lock_timeout=5 geqo=off search_path=b"},
		{"empty options", []string{"options", "  "}, ""},
		{"replication off", []string{"replication", "false"}, ""},
	} {
		p, state := parseStartup(startup(version30, append([]string{"user", "u"}, test.given...)...)[4:])
		var got []string
		for _, param := range p.Params {
			got = append(got, param[0]+"="+param[1])
		}
		if strings.Join(got, " ") != test.want || state != "" {
			t.Errorf("%s: passes on %q, %s, want %q", test.name, got, state, test.want)
		}
	}
	for _, options := range []string{"-c role=x", "--role=x", "-c ROLE=x", `--ro\le=x`, "-c session_authorization=x", "--session-authorization=x",
		"-c", "-c role", "--=x", "-", "--", "x", "-e", "-W 5", "-c user=postgres", "--user=postgres", "-cUSER=x", "-c database=x", "-c options=-crole=x", "-c replication=true",
		"-c _pq_.a=b", "-c post_auth_delay=100"} {
		if p, state := parseStartup(startup(version30, "user", "u", "options", options)[4:]); state == "" {
			t.Errorf("options %q passed on as %q", options, p.Params)
		}
	}
	// If a parameter is repeated, the last value counts, and is the one that is checked.
	p, state := parseStartup(startup(version30, "user", "a", "database", "d", "user", "b", "database", "e")[4:])
	if state != "" || p.User != "b" || p.Database != "e" {
		t.Errorf("repeated: %+v %s", p, state)
	}
}

func TestSplitOptions(t *testing.T) {
	for in, want := range map[string][]string{
		"":                   nil,
		" \t\n":              nil,
		"a b":                {"a", "b"},
		` a\ b  c\\d `:       {"a b", `c\d`},
		`a\`:                 {"a"},
		`\ `:                 {" "},
		"a\vb\fc\rd":         {"a", "b", "c", "d"},
		`-c x=\'quoted\ y\'`: {"-c", "x='quoted y'"},
	} {
		if got := pgwire.SplitOptions(in); !reflect.DeepEqual(got, want) {
			t.Errorf("SplitOptions(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestBareVersion(t *testing.T) {
	for in, want := range map[string]string{
		"15.18 (Debian 15.18-0+deb12u1)": "15.18", "18.4": "18.4", "17beta1": "17", "19devel": "19", "8.0.2": "8.0.2", "PostgreSQL": "PostgreSQL", "": "", "16.": "16",
	} {
		if got := pgwire.BareVersion(in); got != want {
			t.Errorf("BareVersion(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzStartup(f *testing.F) {
	f.Add(startup(version30, "user", "IAM:alice", "options", `-c a=b --c-d=e\ f`, "replication", "false")[4:])
	f.Add(startup(version32, "user", "u", "_pq_.x", "1", "client_protocol_version", "2")[4:])
	f.Add(pgwire.AppendPacket(nil, pgwire.SSLRequest, nil)[4:])
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) < 4 {
			return // the reader rejects such a packet
		}
		p, state := parseStartup(packet)
		if state != "" {
			return
		}
		if binary.BigEndian.Uint32(packet)>>16 != 3 || p.User == "" || packet[len(packet)-1] != 0 {
			t.Fatalf("accepted: %+v", p)
		}
		for _, param := range p.Params {
			if strings.ContainsRune(param[0]+param[1], 0) {
				t.Fatalf("a NUL in %q", param)
			}
			switch strings.ToLower(param[0]) {
			case "role", "session_authorization", "replication", "options", "user", "database", "":
				t.Fatalf("passes on %q", param)
			}
			if strings.HasPrefix(param[0], "_pq_.") {
				t.Fatalf("passes on %q", param)
			}
		}
		// The parsed message, written again, parses to the same values.
		again := []string{"user", p.User, "database", p.Database}
		if strings.ContainsRune(p.User+p.Database, 0) {
			t.Fatalf("a NUL in %+v", p)
		}
		if p.Redshift {
			again = append(again, "client_protocol_version", "2")
		}
		for _, param := range p.Params {
			again = append(again, param[0], param[1])
		}
		q, state := parseStartup(startup(p.Version, again...)[4:])
		q.Negotiation = p.Negotiation
		if state != "" || !reflect.DeepEqual(p, q) {
			t.Fatalf("%+v, written again, is %+v %s", p, q, state)
		}
	})
}

func FuzzPassword(f *testing.F) {
	f.Add([]byte("secret\x00"))
	f.Add([]byte("sec\x00ret\x00"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		password, ok := pgwire.ParsePassword(body)
		if want := bytes.IndexByte(body, 0) == len(body)-1 && len(body) > 0; ok != want {
			t.Fatalf("ParsePassword(%q) = %v, want %v", body, ok, want)
		}
		if ok && !bytes.Equal(append([]byte(password), 0), body) {
			t.Fatalf("ParsePassword(%q) = %q", body, password)
		}
	})
}
