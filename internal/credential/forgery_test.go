package credential_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"maps"
	"reflect"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/fxamacker/cbor/v2"
)

// parts is a credential that is built without the package, so that a test can make one part
// wrong and still sign it correctly.
type parts struct {
	tags        []byte
	header      any // marshalled, unless it is already []byte
	unprotected any
	claims      any
	aad         string
	context     string
	sign        func(msg []byte) []byte
	outer       func(list []any) any
}

func exampleParts(k *keyring.Keyring) (*parts, map[int]any, map[int]any) {
	id, sign := k.Signer(noon)
	header := map[int]any{1: -8, 4: id}
	claims := map[int]any{
		2: "arn:aws:iam::123456789012:user/ana", 3: "examplecluster",
		4: noon.Add(15 * time.Minute).Unix(), 6: noon.Unix(), 7: exampleID,
		-65537: "alice", -65538: "dev", -65539: []string{"analysts", "finance"}, -65540: true,
	}
	return &parts{
		tags: []byte{0xd8, 61, 0xd2}, header: header, unprotected: map[int]any{}, claims: claims,
		aad: "daypass database credential 1", context: "Signature1", sign: sign,
	}, header, claims
}

var exampleID = []byte{0x01, 0x9b, 0x77, 0xf1, 0x50, 0x00, 0xd1, 0x57, 0xb6, 0xc2, 0xf1, 0x17, 0x8e, 0xc9, 0x13, 0xb8}

func (p *parts) password(t *testing.T) string {
	t.Helper()
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	encode := func(v any) []byte {
		if raw, ok := v.([]byte); ok {
			return raw
		}
		data, err := mode.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	header, claims := encode(p.header), encode(p.claims)
	signature := p.sign(encode([]any{p.context, header, []byte(p.aad), claims}))
	var body any = []any{header, p.unprotected, claims, signature}
	if p.outer != nil {
		body = p.outer(body.([]any))
	}
	return base64.RawURLEncoding.EncodeToString(append(bytes.Clone(p.tags), encode(body)...))
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	data, err := mode.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Each row changes one thing of a valid credential and signs it with the right key, unless the row
// changes the key or the signature. All are refused, most for their own reason.
func TestForgeries(t *testing.T) {
	k := exampleKeyring(t)
	good, _, _ := exampleParts(k)
	if got := good.password(t); got != mint(t, k, exampleGrant()) {
		t.Fatalf("the independent writer does not agree with Mint:\n%s\n%s", got, mint(t, k, exampleGrant()))
	}
	other := keyring.New(noon)
	otherID, otherSign := other.Signer(noon)
	type change = func(p *parts, header, claims map[int]any)
	claim := func(key int, value any) change {
		return func(_ *parts, _, claims map[int]any) { claims[key] = value }
	}
	without := func(key int) change {
		return func(_ *parts, _, claims map[int]any) { delete(claims, key) }
	}
	malformed, forged, unknown := credential.ErrMalformed, credential.ErrForged, credential.ErrUnknownKey
	for name, row := range map[string]struct {
		change change
		want   error
	}{
		// Who signed, and what.
		"another keyring":     {func(p *parts, h, _ map[int]any) { h[4], p.sign = otherID, otherSign }, unknown},
		"another's signature": {func(p *parts, _, _ map[int]any) { p.sign = otherSign }, forged},
		"signature of zeroes": {func(p *parts, _, _ map[int]any) { p.sign = func([]byte) []byte { return make([]byte, 64) } }, forged},
		"no signature":        {func(p *parts, _, _ map[int]any) { p.sign = func([]byte) []byte { return nil } }, malformed},
		"signature too long": {func(p *parts, _, _ map[int]any) {
			s := p.sign
			p.sign = func(m []byte) []byte { return append(s(m), 0) }
		}, malformed},
		"another external_aad": {func(p *parts, _, _ map[int]any) { p.aad = "daypass database credential 2" }, forged},
		"no external_aad":      {func(p *parts, _, _ map[int]any) { p.aad = "" }, forged},
		"a countersignature":   {func(p *parts, _, _ map[int]any) { p.context = "CounterSignature" }, forged},
		"signed without a structure": {func(p *parts, _, c map[int]any) {
			s := p.sign
			p.sign = func([]byte) []byte { return s(marshal(t, c)) }
		}, forged},

		// Tags and the outer array.
		"no tags":             {func(p *parts, _, _ map[int]any) { p.tags = nil }, malformed},
		"no CWT tag":          {func(p *parts, _, _ map[int]any) { p.tags = []byte{0xd2} }, malformed},
		"COSE_Mac0":           {func(p *parts, _, _ map[int]any) { p.tags = []byte{0xd8, 61, 0xd1} }, malformed},
		"tag in two bytes":    {func(p *parts, _, _ map[int]any) { p.tags = []byte{0xd8, 61, 0xd8, 18} }, malformed},
		"self-described CBOR": {func(p *parts, _, _ map[int]any) { p.tags = []byte{0xd9, 0xd9, 0xf7, 0xd8, 61, 0xd2} }, malformed},
		"CWT twice":           {func(p *parts, _, _ map[int]any) { p.tags = []byte{0xd8, 61, 0xd8, 61, 0xd2} }, malformed},
		"five elements":       {func(p *parts, _, _ map[int]any) { p.outer = func(l []any) any { return append(l, nil) } }, malformed},
		"three elements":      {func(p *parts, _, _ map[int]any) { p.outer = func(l []any) any { return l[:3] } }, malformed},
		"a map":               {func(p *parts, _, _ map[int]any) { p.outer = func(l []any) any { return map[int]any{0: l} } }, malformed},
		"detached payload":    {func(p *parts, _, _ map[int]any) { p.outer = func(l []any) any { l[2] = nil; return l } }, malformed},
		"payload as text":     {func(p *parts, _, _ map[int]any) { p.outer = func(l []any) any { l[2] = "text"; return l } }, malformed},
		"payload in a tag": {func(p *parts, _, _ map[int]any) {
			p.outer = func(l []any) any { l[2] = cbor.Tag{Number: 24, Content: l[2]}; return l }
		}, malformed},
		"payload as numbers": {func(p *parts, _, _ map[int]any) { p.outer = func(l []any) any { l[2] = []int{1, 2}; return l } }, malformed},
		"indefinite array":   {func(p *parts, _, _ map[int]any) { p.outer = func(l []any) any { return indefinite(t, l) } }, malformed},
		"long form of a count": {func(p *parts, _, _ map[int]any) {
			p.outer = func(l []any) any { return append([]byte{0x98, 4}, marshal(t, l)[1:]...) }
		}, malformed},
		"trailing byte": {func(p *parts, _, _ map[int]any) { p.outer = func(l []any) any { return append(marshal(t, l), 0) } }, malformed},

		// Headers.
		"unprotected alg":     {func(p *parts, _, _ map[int]any) { p.unprotected = map[int]any{1: -8} }, malformed},
		"unprotected kid":     {func(p *parts, _, _ map[int]any) { p.unprotected = map[int]any{4: otherID} }, malformed},
		"unprotected null":    {func(p *parts, _, _ map[int]any) { p.unprotected = nil }, malformed},
		"unprotected array":   {func(p *parts, _, _ map[int]any) { p.unprotected = []any{} }, malformed},
		"alg ES256":           {func(_ *parts, h, _ map[int]any) { h[1] = -7 }, malformed},
		"alg HMAC":            {func(_ *parts, h, _ map[int]any) { h[1] = 5 }, malformed},
		"alg as text":         {func(_ *parts, h, _ map[int]any) { h[1] = "EdDSA" }, malformed},
		"no alg":              {func(_ *parts, h, _ map[int]any) { delete(h, 1) }, malformed},
		"alg 0":               {func(_ *parts, h, _ map[int]any) { h[1] = 0 }, malformed},
		"no kid":              {func(_ *parts, h, _ map[int]any) { delete(h, 4) }, malformed},
		"kid null":            {func(_ *parts, h, _ map[int]any) { h[4] = nil }, malformed},
		"kid empty":           {func(_ *parts, h, _ map[int]any) { h[4] = []byte{} }, unknown},
		"kid as text":         {func(_ *parts, h, _ map[int]any) { h[4] = string(otherID) }, malformed},
		"crit":                {func(_ *parts, h, _ map[int]any) { h[2] = []int{4} }, malformed},
		"header order":        {func(p *parts, h, _ map[int]any) { p.header = reversed(t, h, 1, 4) }, malformed},
		"header repeated":     {func(p *parts, h, _ map[int]any) { p.header = repeated(t, h, 1, 4, 4) }, malformed},
		"header empty string": {func(p *parts, _, _ map[int]any) { p.header = []byte{} }, malformed},
		"header trailing":     {func(p *parts, h, _ map[int]any) { p.header = append(marshal(t, h), 0xa0) }, malformed},

		// Claims, all of them signed.
		"over an hour":         {claim(4, noon.Unix()+3601), malformed},
		"over an hour, late":   {claim(6, noon.Unix()-3600), malformed},
		"no life":              {claim(4, noon.Unix()), malformed},
		"backwards":            {claim(4, noon.Unix()-1), malformed},
		"exp as float":         {claim(4, 1767269700.0), malformed},
		"exp with fraction":    {claim(4, 1767269700.5), malformed},
		"exp as text":          {claim(4, "1767269700"), malformed},
		"exp in tag 1":         {claim(4, cbor.Tag{Number: 1, Content: 1767269700}), malformed},
		"exp huge":             {claim(4, uint64(1)<<63), malformed},
		"exp and iat huge":     {func(_ *parts, _, c map[int]any) { c[4], c[6] = int64(1)<<62, int64(1)<<62-1 }, malformed},
		"iat hugely negative":  {claim(6, -int64(1)<<62), malformed},
		"no exp":               {without(4), malformed},
		"no iat":               {without(6), malformed},
		"no cti":               {without(7), malformed},
		"no sub":               {without(2), malformed},
		"no aud":               {without(3), malformed},
		"no user":              {without(-65537), malformed},
		"cti short":            {claim(7, exampleID[:15]), malformed},
		"cti as text":          {claim(7, "01KDVZ2M00T5BVDGQH2Y7CJ4XR"), malformed},
		"aud as a list":        {claim(3, []string{"examplecluster"}), malformed},
		"iss":                  {claim(1, "daypass"), malformed},
		"nbf":                  {claim(5, noon.Unix()), malformed},
		"an unknown claim":     {claim(-65542, 1), malformed},
		"user with a group":    {claim(-65537, "alice:admins"), malformed},
		"user with NUL":        {claim(-65537, "alice\x00"), malformed},
		"user as bytes":        {claim(-65537, []byte("alice")), malformed},
		"user null":            {claim(-65537, nil), malformed},
		"database empty":       {claim(-65538, ""), malformed},
		"database null":        {claim(-65538, nil), malformed},
		"groups empty":         {claim(-65539, []string{}), malformed},
		"groups null":          {claim(-65539, nil), malformed},
		"groups nested":        {claim(-65539, [][]string{{"analysts"}}), malformed},
		"group with a colon":   {claim(-65539, []string{"a:b"}), malformed},
		"autocreate false":     {claim(-65540, false), malformed},
		"autocreate 1":         {claim(-65540, 1), malformed},
		"kind 0":               {claim(-65541, 0), malformed},
		"kind 2":               {claim(-65541, 2), malformed},
		"kind 257":             {claim(-65541, 257), malformed},
		"identity, plain user": {claim(-65541, 1), malformed},
		"identity, not made": {func(_ *parts, _, c map[int]any) {
			c[-65541], c[-65537] = 1, "IAM:ana"
			delete(c, -65540)
		}, malformed},
		"claims order": {func(p *parts, _, c map[int]any) {
			p.claims = reversed(t, c, 2, 3, 4, 6, 7, -65537, -65538, -65539, -65540)
		}, malformed},
		"claims repeated": {func(p *parts, _, c map[int]any) {
			p.claims = repeated(t, c, 2, 3, 4, 4, 6, 7, -65537, -65538, -65539, -65540)
		}, malformed},
		"user twice": {func(p *parts, _, c map[int]any) {
			p.claims = repeated(t, c, 2, 3, 4, 6, 7, -65537, -65537, -65538, -65539, -65540)
		}, malformed},
		"claims trailing": {func(p *parts, _, c map[int]any) { p.claims = append(marshal(t, c), 0) }, malformed},
		"claims empty":    {func(p *parts, _, _ map[int]any) { p.claims = []byte{} }, malformed},
		"claims a list":   {func(p *parts, _, _ map[int]any) { p.claims = []int{1} }, malformed},
		"claims tagged":   {func(p *parts, _, c map[int]any) { p.claims = append([]byte{0xd8, 61}, marshal(t, c)...) }, malformed},
	} {
		p, header, claims := exampleParts(k)
		row.change(p, header, claims)
		got, err := credential.Check(k.Verifier(), p.password(t), noon)
		if !errors.Is(err, row.want) || !reflect.DeepEqual(got, credential.Grant{}) {
			t.Errorf("%s: Check = %+v, %v, want %v and no grant", name, got, err, row.want)
		}
	}
}

// A list of any length is refused without much work.
func TestDeepAndWide(t *testing.T) {
	k := exampleKeyring(t)
	for name, raw := range map[string][]byte{
		"arrays in arrays":  bytes.Repeat([]byte{0x81}, 3000),
		"maps in maps":      bytes.Repeat([]byte{0xa1, 0x00}, 1500),
		"a vast array":      {0x9a, 0xff, 0xff, 0xff, 0xff},
		"a vast string":     {0x84, 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"tags of tags":      bytes.Repeat([]byte{0xd8, 61}, 1500),
		"indefinite string": {0x84, 0x5f, 0x41, 0, 0xff},
	} {
		password := base64.RawURLEncoding.EncodeToString(append([]byte{0xd8, 61, 0xd2}, raw...))
		if _, err := credential.Check(k.Verifier(), password, noon); !errors.Is(err, credential.ErrMalformed) {
			t.Errorf("%s: Check = %v, want %v", name, err, credential.ErrMalformed)
		}
	}
}

// TestInspect: Inspect shows what a password says and whether it is true, with the reason if it is
// not.
func TestInspect(t *testing.T) {
	k := exampleKeyring(t)
	password := mint(t, k, exampleGrant())
	p, _, claims := exampleParts(k)
	claims[4] = noon.Unix() + 7200
	long := p.password(t)
	forgedParts, _, forgedClaims := exampleParts(k)
	forgedClaims[-65537] = "root"
	forgedParts.sign = func([]byte) []byte { return make([]byte, ed25519.SignatureSize) }
	forgedPassword := forgedParts.password(t)

	for name, row := range map[string]struct {
		verifier *keyring.Verifier
		password string
		now      time.Time
		status   credential.Status
		user     string
	}{
		"valid":           {k.Verifier(), password, noon, credential.Valid, "alice"},
		"expired":         {k.Verifier(), password, noon.Add(15 * time.Minute), credential.Expired, "alice"},
		"not yet valid":   {k.Verifier(), password, noon.Add(-time.Hour), credential.NotYetValid, "alice"},
		"forged":          {k.Verifier(), forgedPassword, noon, credential.Forged, "root"},
		"another keyring": {keyring.New(noon).Verifier(), password, noon, credential.Forged, "alice"},
		"no keyring":      {nil, password, noon, credential.Unverified, "alice"},
		"too long a life": {k.Verifier(), long, noon, credential.Malformed, ""},
		"not one":         {k.Verifier(), "secret", noon, credential.Malformed, ""},
		"nothing":         {k.Verifier(), "", noon, credential.Malformed, ""},
	} {
		got := credential.Inspect(row.verifier, row.password, row.now)
		user := ""
		if got.Grant != nil {
			user = got.Grant.DBUser
		}
		if got.Status != row.status || user != row.user || (got.Reason == "") != (row.status == credential.Valid) {
			t.Errorf("%s: Inspect = %+v, want %q about %q", name, got, row.status, row.user)
		}
		if row.user != "" && got.KeyID != "a3f82ed3e8f061aa" {
			t.Errorf("%s: key %q", name, got.KeyID)
		}
	}
}

// indefinite encodes a list with an indefinite length.
func indefinite(t *testing.T, list []any) []byte {
	out := []byte{0x9f}
	for _, v := range list {
		out = append(out, marshal(t, v)...)
	}
	return append(out, 0xff)
}

// repeated encodes a map with the given keys in the given order.
func repeated(t *testing.T, m map[int]any, keys ...int) []byte {
	out := []byte{0xa0 + byte(len(keys))}
	for _, key := range keys {
		out = append(append(out, marshal(t, key)...), marshal(t, m[key])...)
	}
	return out
}

func reversed(t *testing.T, m map[int]any, keys ...int) []byte {
	if want := len(maps.Clone(m)); want != len(keys) {
		t.Fatalf("%d keys, want %d", len(keys), want)
	}
	var order []int
	for i := len(keys) - 1; i >= 0; i-- {
		order = append(order, keys[i])
	}
	return repeated(t, m, order...)
}
