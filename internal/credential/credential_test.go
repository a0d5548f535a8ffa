package credential_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/fxamacker/cbor/v2"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func exampleKeyring(t testing.TB) *keyring.Keyring {
	t.Helper()
	data, err := os.ReadFile("testdata/keyring.json")
	if err != nil {
		t.Fatal(err)
	}
	k, err := keyring.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// exampleGrant is the grant of the package comment.
func exampleGrant() credential.Grant {
	return credential.Grant{
		ID:         "01KDVZ2M00T5BVDGQH2Y7CJ4XR",
		Cluster:    "examplecluster",
		Database:   "dev",
		DBUser:     "alice",
		DBGroups:   []string{"analysts", "finance"},
		AutoCreate: true,
		Principal:  "arn:aws:iam::123456789012:user/ana",
		IssuedAt:   noon,
		NotAfter:   noon.Add(15 * time.Minute),
	}
}

func mint(t testing.TB, k *keyring.Keyring, g credential.Grant) string {
	t.Helper()
	password, err := credential.Mint(k, g)
	if err != nil {
		t.Fatal(err)
	}
	return password.Reveal()
}

// TestExample checks the published example in both directions, and a second time
// with nothing but a CBOR decoder and Ed25519, as another implementation would.
func TestExample(t *testing.T) {
	var example struct {
		PublicKey                   string `json:"public_key"`
		ExternalAAD                 string `json:"external_aad"`
		Protected, Claims, Password string
	}
	data, err := os.ReadFile("testdata/example.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &example); err != nil {
		t.Fatal(err)
	}
	k := exampleKeyring(t)
	if got := mint(t, k, exampleGrant()); got != example.Password {
		t.Errorf("Mint = %s, want %s", got, example.Password)
	}
	got, err := credential.Check(k.Verifier(), example.Password, noon)
	if err != nil || !reflect.DeepEqual(got, exampleGrant()) {
		t.Errorf("Check = %+v, %v, want %+v", got, err, exampleGrant())
	}

	raw, err := base64.RawURLEncoding.DecodeString(example.Password)
	if err != nil {
		t.Fatal(err)
	}
	var cwt cbor.RawTag
	var sign1 cbor.RawTag
	var parts []cbor.RawMessage
	for _, step := range []error{cbor.Unmarshal(raw, &cwt), cbor.Unmarshal(cwt.Content, &sign1), cbor.Unmarshal(sign1.Content, &parts)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	var protected, payload, signature []byte
	for i, part := range map[int]*[]byte{0: &protected, 2: &payload, 3: &signature} {
		if err := cbor.Unmarshal(parts[i], part); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := cbor.Diagnose(protected); d != example.Protected {
		t.Errorf("protected header %s, %v, want %s", d, err, example.Protected)
	}
	if d, err := cbor.Diagnose(payload); d != example.Claims {
		t.Errorf("claims %s, %v, want %s", d, err, example.Claims)
	}
	structure, err := cbor.Marshal([]any{"Signature1", protected, []byte(example.ExternalAAD), payload})
	if err != nil {
		t.Fatal(err)
	}
	public, err := hex.DecodeString(example.PublicKey)
	if err != nil || cwt.Number != 61 || sign1.Number != 18 || len(parts) != 4 || !ed25519.Verify(public, structure, signature) {
		t.Errorf("the example does not verify as COSE_Sign1")
	}
}

// TestRoundTrip: Check returns the grant that was minted, and the password is short enough for
// clients.
func TestRoundTrip(t *testing.T) {
	k := keyring.New(noon)
	for name, change := range map[string]func(*credential.Grant){
		"as it is":       func(*credential.Grant) {},
		"any database":   func(g *credential.Grant) { g.Database = "" },
		"no groups":      func(g *credential.Grant) { g.DBGroups = nil },
		"not made":       func(g *credential.Grant) { g.AutoCreate = false },
		"an hour":        func(g *credential.Grant) { g.NotAfter = g.IssuedAt.Add(time.Hour) },
		"a second":       func(g *credential.Grant) { g.NotAfter = g.IssuedAt.Add(time.Second) },
		"user by IAM":    func(g *credential.Grant) { g.Kind, g.DBUser = credential.Identity, "IAM:ana" },
		"role by IAM":    func(g *credential.Grant) { g.Kind, g.DBUser = credential.Identity, "IAMR:etl" },
		"odd characters": func(g *credential.Grant) { g.Database, g.DBUser = `a"b'c/ü\ `, "A+b@c.-_" },
	} {
		g := exampleGrant()
		g.ID = credential.NewID()
		change(&g)
		password := mint(t, k, g)
		got, err := credential.Check(k.Verifier(), password, noon)
		if err != nil || !reflect.DeepEqual(got, g) {
			t.Errorf("%s: Check = %+v, %v, want %+v", name, got, err, g)
		}
		if !regexp.MustCompile(`^2D3ShE[A-Za-z0-9_-]+$`).MatchString(password) || len(password) > 512 {
			t.Errorf("%s: password of %d characters: %s", name, len(password), password)
		}
	}
	g := exampleGrant()
	g.Kind, g.DBUser, g.AutoCreate = credential.Identity, "IAM:ana", false
	if got, err := credential.Check(k.Verifier(), mint(t, k, g), noon); err != nil || !got.AutoCreate {
		t.Errorf("Check of an identity = %+v, %v, want AutoCreate", got, err)
	}
}

// The longest names of a fleet, with a role session as the principal, keep the typical length.
func TestTypicalLength(t *testing.T) {
	g := exampleGrant()
	g.Principal = "arn:aws:sts::123456789012:assumed-role/warehouse-etl-production/i-0123456789abcdef0"
	g.Cluster, g.Database, g.DBUser = "warehouse-production-1", "warehouse_production", "firstname.lastname@example.com"
	g.DBGroups = []string{"analysts", "finance_readers", "marketing_readers"}
	if n := len(mint(t, keyring.New(noon), g)); n > 512 {
		t.Errorf("%d characters, want at most 512", n)
	}
}

// TestTime: a credential is valid from MaxClockSkew before its issue until its end, and not at its
// end. Outside, Check returns the grant with the error.
func TestTime(t *testing.T) {
	k := keyring.New(noon.Add(-time.Hour))
	g := exampleGrant()
	password := mint(t, k, g)
	for _, row := range []struct {
		now  time.Time
		want error
	}{
		{g.IssuedAt, nil},
		{g.NotAfter.Add(-time.Second), nil},
		{g.NotAfter.Add(-time.Nanosecond), nil},
		{g.NotAfter, credential.ErrExpired},
		{g.NotAfter.Add(time.Nanosecond), credential.ErrExpired},
		{g.NotAfter.Add(1000 * time.Hour), credential.ErrExpired},
		{g.IssuedAt.Add(-time.Second), nil},
		{g.IssuedAt.Add(-credential.MaxClockSkew), nil},
		{g.IssuedAt.Add(-credential.MaxClockSkew - time.Nanosecond), credential.ErrNotYetValid},
	} {
		got, err := credential.Check(k.Verifier(), password, row.now)
		if !errors.Is(err, row.want) {
			t.Errorf("Check at %v = %v, want %v", row.now, err, row.want)
		}
		if !reflect.DeepEqual(got, g) {
			t.Errorf("Check at %v: grant %+v, want %+v", row.now, got, g)
		}
	}
	// The key itself is no longer accepted.
	rotated := k.Rotate(noon, noon)
	late := noon.Add(time.Hour + keyring.Margin)
	if got, err := credential.Check(rotated.Verifier(), password, late); !errors.Is(err, credential.ErrUnknownKey) || !reflect.DeepEqual(got, credential.Grant{}) {
		t.Errorf("Check after the key went out of use = %+v, %v, want %v", got, err, credential.ErrUnknownKey)
	}
}

// Every string that is one edit away from a password is refused.
func TestAlterations(t *testing.T) {
	k := exampleKeyring(t)
	password := mint(t, k, exampleGrant())
	refused := func(what, altered string) {
		t.Helper()
		got, err := credential.Check(k.Verifier(), altered, noon)
		if reason, ok := errors.AsType[*credential.Error](err); !ok || reason.Reason == "" || !reflect.DeepEqual(got, credential.Grant{}) {
			t.Errorf("%s: Check = %+v, %v, want no grant and a reason", what, got, err)
		}
		if errors.Is(err, credential.ErrExpired) || errors.Is(err, credential.ErrNotYetValid) {
			t.Errorf("%s: Check = %v, which speaks of the time before the signature is right", what, err)
		}
	}
	for i := range password {
		for _, c := range "A_=\n" {
			if byte(c) != password[i] {
				refused(fmt.Sprintf("character %d is %q", i, c), password[:i]+string(c)+password[i+1:])
			}
			refused(fmt.Sprintf("%q before character %d", c, i), password[:i]+string(c)+password[i:])
		}
		refused(fmt.Sprintf("cut at %d", i), password[:i])
		refused(fmt.Sprintf("without character %d", i), password[:i]+password[i+1:])
	}
	for _, tail := range []string{"=", "==", "\n", "\r\n", " ", "A", "AAAA", "\x00"} {
		refused(fmt.Sprintf("with %q behind", tail), password+tail)
	}
	// The last character has two unused bits.
	last := strings.IndexByte(alphabet, password[len(password)-1])
	for bits := 1; bits < 4; bits++ {
		refused("unused bits", password[:len(password)-1]+string(alphabet[last|bits]))
	}
	refused("twice", password+password)
	refused("capitals", strings.ToUpper(password))
	refused("longer than the limit", password+strings.Repeat("A", credential.MaxLength))
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// TestMintRefuses: a grant with anything missing or out of bounds is not minted.
func TestMintRefuses(t *testing.T) {
	k := keyring.New(noon)
	for name, change := range map[string]func(*credential.Grant){
		"no identifier":          func(g *credential.Grant) { g.ID = "" },
		"identifier in lower":    func(g *credential.Grant) { g.ID = strings.ToLower(g.ID) },
		"identifier too large":   func(g *credential.Grant) { g.ID = "8" + g.ID[1:] },
		"identifier with U":      func(g *credential.Grant) { g.ID = g.ID[:25] + "U" },
		"no cluster":             func(g *credential.Grant) { g.Cluster = "" },
		"no user":                func(g *credential.Grant) { g.DBUser = "" },
		"no principal":           func(g *credential.Grant) { g.Principal = "" },
		"user with colon":        func(g *credential.Grant) { g.DBUser = "a:b" },
		"user with NUL":          func(g *credential.Grant) { g.DBUser = "a\x00b" },
		"user not UTF-8":         func(g *credential.Grant) { g.DBUser = "a\xffb" },
		"database with newline":  func(g *credential.Grant) { g.Database = "a\nb" },
		"group with colon":       func(g *credential.Grant) { g.DBGroups = []string{"a", "b:c"} },
		"empty group":            func(g *credential.Grant) { g.DBGroups = []string{""} },
		"kind unknown":           func(g *credential.Grant) { g.Kind = 2 },
		"identity, no prefix":    func(g *credential.Grant) { g.Kind = credential.Identity },
		"identity, other prefix": func(g *credential.Grant) { g.Kind, g.DBUser = credential.Identity, "IAMA:ana" },
		"identity, no name":      func(g *credential.Grant) { g.Kind, g.DBUser = credential.Identity, "IAM:" },
		"longer than an hour":    func(g *credential.Grant) { g.NotAfter = g.IssuedAt.Add(time.Hour + time.Second) },
		"no life":                func(g *credential.Grant) { g.NotAfter = g.IssuedAt },
		"backwards":              func(g *credential.Grant) { g.NotAfter = g.IssuedAt.Add(-time.Hour) },
		"fraction of a second":   func(g *credential.Grant) { g.NotAfter = g.NotAfter.Add(time.Nanosecond) },
		"no times":               func(g *credential.Grant) { g.IssuedAt, g.NotAfter = time.Time{}, time.Time{} },
	} {
		g := exampleGrant()
		change(&g)
		if password, err := credential.Mint(k, g); err == nil || password != "" {
			t.Errorf("%s: Mint gave a password", name)
		}
	}
	g := exampleGrant()
	g.DBGroups = slices.Repeat([]string{strings.Repeat("g", 60)}, 60)
	if _, err := credential.Mint(k, g); !errors.Is(err, credential.ErrTooLong) {
		t.Errorf("Mint with 60 groups = %v, want %v", err, credential.ErrTooLong)
	}
	g.DBGroups = g.DBGroups[:40]
	if n := len(mint(t, k, g)); n > credential.MaxLength {
		t.Errorf("%d characters", n)
	}
}

// TestAcceptsUser: a credential is for the user name that it was issued with, alone or with
// exactly its groups.
func TestAcceptsUser(t *testing.T) {
	plain := credential.Grant{DBUser: "alice"}
	created := credential.Grant{DBUser: "alice", AutoCreate: true, DBGroups: []string{"analysts", "finance"}}
	identity := credential.Grant{DBUser: "IAMR:etl", AutoCreate: true, Kind: credential.Identity, DBGroups: []string{"g"}}
	for _, row := range []struct {
		grant  credential.Grant
		accept string
		refuse string
	}{
		{plain, "IAM:alice", "alice IAMA:alice IAM:Alice IAM:alice: IAM:alice:analysts IAM:bob iam:alice IAM: IAM:IAM:alice"},
		{created, "IAMA:alice IAMA:alice:analysts:finance", "alice IAM:alice IAMA:alice:finance:analysts IAMA:alice:analysts IAMA:alice:analysts:finance:x IAMA:alice: IAMA:alice:analysts:finance:"},
		{identity, "IAMR:etl IAMR:etl:g", "etl IAM:etl IAMA:IAMR:etl IAM:IAMR:etl"},
	} {
		if name := strings.Fields(row.accept)[0]; row.grant.LogonName() != name {
			t.Errorf("LogonName of %+v = %q, want %q", row.grant, row.grant.LogonName(), name)
		}
		for user := range strings.FieldsSeq(row.accept) {
			if !row.grant.AcceptsUser(user) {
				t.Errorf("AcceptsUser(%q) of %+v = false", user, row.grant)
			}
		}
		for _, user := range append(strings.Fields(row.refuse), "") {
			if row.grant.AcceptsUser(user) {
				t.Errorf("AcceptsUser(%q) of %+v = true", user, row.grant)
			}
		}
	}
}

// TestRedacted keeps the mark that package keyring looks for.
func TestRedacted(t *testing.T) {
	password := mint(t, keyring.New(time.Unix(0, 0)), exampleGrant())
	for _, text := range []string{password, password[:len(password)-1], password[:256]} {
		if got := keyring.Redact("user " + text + "!"); got != "user [redacted]!" {
			t.Errorf("Redact(%q) = %q", text, got)
		}
	}
}

// TestParseID: ParseID accepts lower case and white space around the identifier.
func TestParseID(t *testing.T) {
	id := credential.NewID()
	for _, text := range []string{id, strings.ToLower(id), " " + id + "\n"} {
		if got, ok := credential.ParseID(text); got != id || !ok {
			t.Errorf("ParseID(%q) = %q, %v, want %q", text, got, ok, id)
		}
	}
	for _, text := range []string{"", id[1:], id + "0", "foo", "8" + id[1:], id[:25] + "U"} {
		if _, ok := credential.ParseID(text); ok {
			t.Errorf("ParseID(%q) is an identifier", text)
		}
	}
}

// TestNewID: identifiers are ULIDs, never repeat and do not go back in time.
func TestNewID(t *testing.T) {
	seen := map[string]bool{}
	previous := ""
	for range 1000 {
		id := credential.NewID()
		if !regexp.MustCompile(`^[0-7][0-9A-HJKMNP-TV-Z]{25}$`).MatchString(id) || seen[id] {
			t.Fatalf("NewID() = %q, want a new ULID", id)
		}
		if id[:10] < previous {
			t.Fatalf("NewID() = %q, whose time is before %q", id, previous)
		}
		seen[id], previous = true, id[:10]
	}
}

func FuzzCheck(f *testing.F) {
	k := exampleKeyring(f)
	good := mint(f, k, exampleGrant())
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add("2D3ShE")
	f.Add("")
	f.Fuzz(func(t *testing.T, password string) {
		found := credential.Inspect(nil, password, noon)
		got, err := credential.Check(k.Verifier(), password, noon)
		if err == nil {
			// This key must have signed it, so minting its grant again gives the same password.
			if again := mint(t, k, got); again != password {
				t.Fatalf("Check took %q, and Mint makes %q of it", password, again)
			}
		}
		if found.Grant == nil {
			return
		}
		// Minting the grant of a readable token gives the same bytes, apart from key and signature.
		raw, err := base64.RawURLEncoding.DecodeString(password)
		if err != nil {
			t.Fatal(err)
		}
		again, err := credential.Mint(k, *found.Grant)
		if errors.Is(err, credential.ErrTooLong) {
			return // the original has a shorter kid, with which it fits
		}
		if err != nil {
			t.Fatal(err)
		}
		rebuilt, err := base64.RawURLEncoding.DecodeString(again.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) != len(rebuilt) && len(found.KeyID) == 16 || !bytes.Equal(payload(t, raw), payload(t, rebuilt)) {
			t.Fatalf("claims %x are encoded again as %x", payload(t, raw), payload(t, rebuilt))
		}
	})
}

func payload(t *testing.T, raw []byte) []byte {
	t.Helper()
	var parts []cbor.RawMessage
	var out []byte
	if err := cbor.Unmarshal(raw[3:], &parts); err != nil {
		t.Fatal(err)
	}
	if err := cbor.Unmarshal(parts[2], &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func BenchmarkMint(b *testing.B) {
	k := keyring.New(noon)
	g := exampleGrant()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := credential.Mint(k, g); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	k := keyring.New(noon)
	password := mint(b, k, exampleGrant())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := credential.Check(k.Verifier(), password, noon); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzMint: Check accepts every password that Mint makes. Mint writes the bytes by hand; Check
// decodes them with a CBOR library, encodes them again and compares.
func FuzzMint(f *testing.F) {
	f.Add("examplecluster", "dev", "alice", "analysts,finance", true, int64(1767268800), int64(900))
	f.Add("c", "", "u", "", false, int64(0), int64(1))
	f.Add(strings.Repeat("c", 300), strings.Repeat("d", 24), strings.Repeat("u", 1000), "g", true, int64(1)<<33, int64(3600))
	k := exampleKeyring(f)
	f.Fuzz(func(t *testing.T, cluster, database, user, groups string, autoCreate bool, issued, seconds int64) {
		want := credential.Grant{
			ID: credential.NewID(), Cluster: cluster, Database: database, DBUser: user, AutoCreate: autoCreate,
			Principal: "arn:aws:iam::123456789012:user/" + user,
			IssuedAt:  time.Unix(issued, 0).UTC(), NotAfter: time.Unix(issued+seconds, 0).UTC(),
		}
		if groups != "" {
			want.DBGroups = strings.Split(groups, ",")
		}
		password, err := credential.Mint(k, want)
		if err != nil {
			return // not a grant to sign
		}
		got, err := credential.Check(k.Verifier(), password.Reveal(), want.IssuedAt)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("Check = %+v, %v, want %+v", got, err, want)
		}
	})
}
