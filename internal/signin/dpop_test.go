package signin

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const tokenURL = "https://daypass.example.com/v1/token"

var proofTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// testKey is a private key that is the same in every run.
func testKey(t testing.TB, seed int64) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), big.NewInt(seed).FillBytes(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// joseProof returns a proof that was made by another implementation.
func joseProof(t testing.TB, key *ecdsa.PrivateKey, at time.Time) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := json.Marshal(map[string]any{"htm": "POST", "htu": tokenURL, "iat": at.Unix(), "jti": at.String()})
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestProofOfAnotherImplementation(t *testing.T) {
	key := testKey(t, 7)
	got, err := checkProof(joseProof(t, key, proofTime), tokenURL, proofTime)
	if err != nil {
		t.Fatal(err)
	}
	want, err := (&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256)
	if err != nil || string(got.key) != string(want) {
		t.Errorf("the thumbprint is %x, want %x, %v", got.key, want, err)
	}
}

// Some clients drop the leading zeros of coordinates. The key is still the same.
func TestProofWithShortCoordinates(t *testing.T) {
	for seed := int64(1); ; seed++ {
		key := testKey(t, seed)
		point, _ := key.PublicKey.Bytes()
		if point[1] != 0 {
			continue
		}
		encode := base64.RawURLEncoding.EncodeToString
		header := `{"typ":"dpop+jwt","alg":"ES256","jwk":{"kty":"EC","crv":"P-256","x":"` + encode(point[2:33]) + `","y":"` + encode(point[33:]) + `"}}`
		claims, _ := json.Marshal(map[string]any{"htm": "POST", "htu": tokenURL, "iat": proofTime.Unix(), "jti": "1"})
		text := encode([]byte(header)) + "." + encode(claims)
		sum := sha256.Sum256([]byte(text))
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		signature := make([]byte, 64)
		r.FillBytes(signature[:32])
		s.FillBytes(signature[32:])
		short, err := checkProof(text+"."+encode(signature), tokenURL, proofTime)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := checkProof(joseProof(t, key, proofTime), tokenURL, proofTime)
		if err != nil || string(short.key) != string(whole.key) {
			t.Errorf("the thumbprints are %x and %x, want one, %v", short.key, whole.key, err)
		}
		return
	}
}

func TestSameAddress(t *testing.T) {
	for given, want := range map[string]bool{
		tokenURL: true,
		"https://daypass.example.com:443/v1/token":     true,
		"HTTPS://Daypass.Example.Com/v1/token":         true,
		"https://daypass.example.com/v1/token?x=1#y":   true,
		"http://daypass.example.com/v1/token":          false,
		"https://daypass.example.com:8440/v1/token":    false,
		"https://daypass.example.com/v1/token/":        false,
		"https://daypass.example.com/v1/%74oken":       false,
		"https://x@daypass.example.com/v1/token":       false,
		"https://daypass.example.com.evil.io/v1/token": false,
		"": false,
	} {
		if got := sameAddress(given, tokenURL); got != want {
			t.Errorf("sameAddress(%q) = %t, want %t", given, got, want)
		}
	}
}

// TestProofsAreTakenOnce: a proof is accepted once during its whole lifetime, and a flood of
// proofs uses bounded memory.
func TestProofsAreTakenOnce(t *testing.T) {
	var p proofs
	one := &proof{[]byte("key"), "1", proofTime}
	if err := p.use(one, proofTime); err != nil {
		t.Fatal(err)
	}
	if p.use(one, proofTime.Add(proofAge)) == nil {
		t.Error("a proof was taken a second time")
	}
	if err := p.use(&proof{[]byte("key"), "2", proofTime}, proofTime); err != nil {
		t.Error(err)
	}
	for i := len(p.until); i < maxProofs; i++ {
		if err := p.use(&proof{[]byte("many"), big.NewInt(int64(i)).String(), proofTime}, proofTime); err != nil {
			t.Fatal(err)
		}
	}
	fresh := func(at time.Time) error { return p.use(&proof{[]byte("key"), "3", at}, at) }
	if fresh(proofTime) == nil || len(p.until) > maxProofs {
		t.Errorf("%d proofs are remembered, want %d and a refusal", len(p.until), maxProofs)
	}
	if err := fresh(proofTime.Add(2 * proofAge)); err != nil || len(p.until) > 1 {
		t.Errorf("when all are over: %v, and %d are remembered", err, len(p.until))
	}
}

// FuzzProof: another implementation accepts every proof that checkProof accepts, and no proof is
// accepted for a key that has not signed it.
func FuzzProof(f *testing.F) {
	key := testKey(f, 7)
	good := joseProof(f, key, proofTime)
	parts := strings.Split(good, ".")
	own, err := checkProof(good, tokenURL, proofTime)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(parts[0] + "." + parts[1] + ".")
	f.Add(parts[1] + "." + parts[0] + "." + parts[2])
	f.Add("eyJhbGciOiJub25lIn0..")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := checkProof(text, tokenURL, proofTime)
		if err != nil {
			return
		}
		if string(got.key) == string(own.key) && !strings.HasPrefix(text, parts[0]+"."+parts[1]+".") {
			t.Fatalf("%q passes for a proof of a key that has never signed it", text)
		}
		jws, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatalf("%q is taken, and another implementation says: %v", text, err)
		}
		if _, err := jws.Verify(jws.Signatures[0].Header.JSONWebKey); err != nil {
			t.Fatalf("%q is taken, and another implementation says: %v", text, err)
		}
	})
}
