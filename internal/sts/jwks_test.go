package sts_test

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/sts"
)

// vector is one signature of testdata/jws.json. The RFCs' signatures are over texts that are not
// tokens; OpenSSL's are over tokens of https://vectors.example.com.
type vector struct {
	Source, Alg string
	Key         json.RawMessage
	Token       string
}

func vectors(t testing.TB) (list []vector) {
	t.Helper()
	data, err := os.ReadFile("testdata/jws.json")
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Every algorithm, with signatures that others have made.
func TestSignatureVectors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "jwks.json")
	d, err := directory.New(directory.Spec{Account: "123456789012", Region: "us-east-1",
		Providers: []directory.Provider{{Issuer: "https://vectors.example.com", Audiences: []string{"daypass"}, JWKSFile: file}}})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	all := vectors(t)
	for _, v := range all {
		name := v.Alg + ", " + v.Source
		set := []byte(`{"keys":[` + string(v.Key) + `]}`)
		if err := sts.VerifyJWS(set, v.Token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		parts := strings.Split(v.Token, ".")
		signature, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{0, len(signature) / 2, len(signature) - 1} {
			changed := slices.Clone(signature)
			changed[at] ^= 1
			if err := sts.VerifyJWS(set, parts[0]+"."+parts[1]+"."+base64.RawURLEncoding.EncodeToString(changed)); err == nil {
				t.Errorf("%s: a bit of byte %d changed, and it is accepted", name, at)
			}
		}
		// The same signature under the name of every other algorithm.
		header, _ := base64.RawURLEncoding.DecodeString(parts[0])
		for _, other := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"} {
			renamed := base64.RawURLEncoding.EncodeToString(bytes.Replace(header, []byte(`"`+v.Alg+`"`), []byte(`"`+other+`"`), 1))
			if err := sts.VerifyJWS(set, renamed+"."+parts[1]+"."+parts[2]); other != v.Alg && err == nil {
				t.Errorf("%s: accepted as %s", name, other)
			}
		}
		// A key that names its algorithm verifies only that algorithm.
		for alg, want := range map[string]error{v.Alg: nil, "RSA-OAEP": sts.ErrBadSignature} {
			if err := sts.VerifyJWS(bytes.Replace(set, []byte(`"kty"`), []byte(`"alg": "`+alg+`", "kty"`), 1), v.Token); !errors.Is(err, want) {
				t.Errorf("%s, with a key for %s: got %v, want %v", name, alg, err, want)
			}
		}
		if !strings.HasPrefix(v.Source, "OpenSSL") {
			continue
		}
		seen[v.Alg] = true
		if err := os.WriteFile(file, set, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := sts.CheckKeyFile(file); err != nil {
			t.Errorf("%s: CheckKeyFile: %v", name, err)
		}
		var ids sts.WebIdentities
		if got, err := ids.Verify(context.Background(), d, start, v.Token); err != nil || got.Subject != "repo:a/b" {
			t.Errorf("%s: Verify = %+v, %v", name, got, err)
		}
	}
	if len(seen) != 10 {
		t.Errorf("the vectors have the algorithms %v, want ten", seen)
	}
}

// The error names an algorithm that is not accepted, but repeats no text that is not a
// plausible name.
func TestOtherAlgorithmsAreNamed(t *testing.T) {
	i := newIssuer(t)
	good := newSigner(t, "1", jose.RS256)
	i.keys.Store(publish(good))
	d := i.directory(t)
	parts := strings.Split(good.sign(t, i.claims(nil)), ".")
	for alg, want := range map[string]string{
		"HS256": "HS256", "HS512": "HS512", "none": "none", "None": "None", "ES256K": "ES256K", "Ed448": "Ed448", "ML-DSA-65": "ML-DSA-65", "rs256": "rs256", "RS1": "RS1",
		"": "", "a\nb": "", "<b>": "", strings.Repeat("A", 33): "",
	} {
		header, _ := json.Marshal(map[string]string{"alg": alg, "kid": "1"})
		var ids sts.WebIdentities
		_, err := ids.Verify(context.Background(), d, start, base64.RawURLEncoding.EncodeToString(header)+"."+parts[1]+"."+parts[2])
		if other, ok := errors.AsType[*sts.AlgorithmError](err); !ok || other.Algorithm != want {
			t.Errorf("alg %q: got %v, want an AlgorithmError with %q", alg, err, want)
			continue
		}
		if text := err.Error(); !strings.Contains(text, "ES384") || want != "" && !strings.Contains(text, "signed with "+want+";") || want == "" && !strings.Contains(text, "an unknown algorithm") {
			t.Errorf("alg %q: the text is %q", alg, text)
		}
	}
	if i.fetched.Load() != 0 {
		t.Error("the provider was asked for its keys")
	}
}

// Weak keys are ignored, in a file and from a provider.
func TestWeakKeys(t *testing.T) {
	key := func(bits int) *rsa.PublicKey {
		n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
		return &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537}
	}
	jwk := func(public any, more string) string {
		text, err := json.Marshal(jose.JSONWebKey{Key: public, KeyID: "1"})
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(string(text), "}") + more + "}"
	}
	exponent := func(e int) *rsa.PublicKey { k := key(2048); k.E = e; return k }
	real, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	x, y := elliptic.P224().Params().Gx, elliptic.P224().Params().Gy
	encode := func(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }
	private, _ := json.Marshal(jose.JSONWebKey{Key: real, KeyID: "1"})
	ec := `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"`
	path := filepath.Join(t.TempDir(), "jwks.json")
	for name, row := range map[string]struct {
		key string
		ok  bool
	}{
		"RSA of 512 bits":            {jwk(key(512), ""), false},
		"RSA of 1024 bits":           {jwk(key(1024), ""), false},
		"RSA of 2047 bits":           {jwk(key(2047), ""), false},
		"RSA of 2048 bits":           {jwk(key(2048), ""), true},
		"RSA of 4096 bits":           {jwk(key(4096), ""), true},
		"RSA of 4097 bits":           {jwk(key(4097), ""), false},
		"RSA with the exponent 1":    {jwk(exponent(1), ""), false},
		"RSA with the exponent 2":    {jwk(exponent(2), ""), false},
		"RSA with the exponent 3":    {jwk(exponent(3), ""), true},
		"RSA with an even exponent":  {jwk(exponent(65536), ""), false},
		"a private key":              {string(private), false},
		"P-224":                      {fmt.Sprintf(`{"kty":"EC","crv":"P-224","x":%q,"y":%q}`, encode(x), encode(y)), false},
		"secp256k1":                  {strings.Replace(ec, "P-256", "secp256k1", 1) + "}", false},
		"a point beside the curve":   {strings.Replace(ec, "x_FE", "x_FF", 1) + "}", false},
		"P-256":                      {ec + "}", true},
		"for encryption":             {ec + `,"use":"enc"}`, false},
		"for signatures":             {ec + `,"use":"sig"}`, true},
		"to encrypt":                 {ec + `,"key_ops":["encrypt","sign"]}`, false},
		"to verify":                  {ec + `,"key_ops":["verify"]}`, true},
		"to do nothing":              {ec + `,"key_ops":[]}`, false},
		"to do something ill-formed": {ec + `,"key_ops":"verify"}`, false},
		"symmetric":                  {`{"kty":"oct","k":"AAAA"}`, false},
		"Ed448":                      {`{"kty":"OKP","crv":"Ed448","x":"AAAA"}`, false},
		"X25519":                     {`{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`, false},
	} {
		if err := os.WriteFile(path, []byte(`{"keys":[`+row.key+`]}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := sts.CheckKeyFile(path); (err == nil) != row.ok || err != nil && !strings.Contains(err.Error(), "accepted are RSA from 2048") {
			t.Errorf("%s: CheckKeyFile = %v, want it accepted: %t", name, err, row.ok)
		}
	}
	many := `{"keys":[` + strings.TrimSuffix(strings.Repeat(ec+"},", 201), ",") + `]}`
	if err := os.WriteFile(path, []byte(many), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sts.CheckKeyFile(path); err == nil || !strings.Contains(err.Error(), "more than 200 keys") {
		t.Errorf("201 keys: CheckKeyFile = %v", err)
	}
}

// FuzzKeySet: whatever the key set contains, only the signatures of the vectors verify, and only
// over the text that they signed.
func FuzzKeySet(f *testing.F) {
	decoded := func(token string) string {
		var parts []string
		for part := range strings.SplitSeq(token, ".") {
			bytes, _ := base64.RawURLEncoding.DecodeString(part)
			parts = append(parts, string(bytes))
		}
		return fmt.Sprintf("%q", parts)
	}
	signed := map[string]bool{}
	for _, v := range vectors(f) {
		f.Add([]byte(`{"keys":[`+string(v.Key)+`]}`), v.Token)
		signed[decoded(v.Token)] = true
	}
	f.Fuzz(func(t *testing.T, set []byte, token string) {
		if sts.VerifyJWS(set, token) == nil && !signed[decoded(token)] {
			t.Errorf("%q verifies with %q", token, set)
		}
	})
}
