package signin

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/daypass/daypass/internal/keyring"
)

// State that travels with requests is sealed for one step, and opens for no other. The comments say
// where it travels, and what its type is.
const (
	forState   = "state"   // of the provider: request
	forConsent = "consent" // in the page with the roles: consent
	forCode    = "code"    // code
	forRefresh = "refresh" // refresh
	forConsole = "console" // the console's cookie: browserSession

	forClient      = "sso client"        // registration
	forSecret      = "sso secret"        // the registration's id
	forSSOCode     = "sso code"          // ssoCode
	forAccess      = "sso access"        // grant
	forRenewal     = "sso refresh"       // grant
	forDeviceCode  = "device code"       // deviceCode
	forLoginDevice = "login device code" // deviceCode
	forDevice      = "device"            // in the pages about a device: consent
	forMeeting     = "meeting "          // and the user code: meeting
)

// maxSealed is the longest text that is opened, in characters.
const maxSealed = 16 << 10

// request is the client's request, kept until the provider sends the browser back.
type request struct {
	Remote    bool   `cbor:"1,keyasint,omitempty"`
	Redirect  string `cbor:"2,keyasint"`
	State     string `cbor:"3,keyasint"`
	Challenge []byte `cbor:"4,keyasint"`
	// Browser is the hash of the cookie, Nonce the nonce of the ID token, and Verifier our PKCE
	// verifier for the provider.
	Browser  []byte `cbor:"5,keyasint"`
	Nonce    string `cbor:"6,keyasint"`
	Verifier string `cbor:"7,keyasint"`
	NotAfter int64  `cbor:"8,keyasint"`
	Issuer   string `cbor:"9,keyasint"` // where the browser was sent
	// Client is set for a client of SSO OIDC. ForDevice means that a device asks, and that
	// there is no client: UserCode is what the person has typed, if anything.
	Client    *registration `cbor:"10,keyasint,omitempty"`
	ForDevice bool          `cbor:"11,keyasint,omitempty"`
	UserCode  string        `cbor:"12,keyasint,omitempty"`
	// Console is the console's page that the browser goes to after the sign-in. It is empty if
	// a client or a device asks.
	Console string `cbor:"13,keyasint,omitempty"`
}

// identity is a person as the provider's token describes them.
type identity struct {
	Claims  []byte `cbor:"1,keyasint"` // the token's payload, DEFLATE
	Session string `cbor:"2,keyasint"`
	Since   int64  `cbor:"3,keyasint"`
}

// consent is a request of a person who has signed in and has not yet chosen a role.
type consent struct {
	Request  request  `cbor:"1,keyasint"`
	Identity identity `cbor:"2,keyasint"`
	Device   []byte   `cbor:"3,keyasint,omitempty"` // the id of the device code that the page is about
}

// code is the authorization code that the client exchanges for keys.
type code struct {
	ID        []byte   `cbor:"1,keyasint"`
	Identity  identity `cbor:"2,keyasint"`
	Role      string   `cbor:"3,keyasint"`
	RoleID    string   `cbor:"4,keyasint"`
	ClientID  string   `cbor:"5,keyasint"`
	Redirect  string   `cbor:"6,keyasint"`
	Challenge []byte   `cbor:"7,keyasint"`
	NotAfter  int64    `cbor:"8,keyasint"`
}

// refresh is a refresh token. Only the holder of the client's private key can use it.
type refresh struct {
	Identity identity `cbor:"1,keyasint"`
	Role     string   `cbor:"2,keyasint"`
	RoleID   string   `cbor:"3,keyasint"`
	ClientID string   `cbor:"4,keyasint"`
	Key      []byte   `cbor:"5,keyasint"` // thumbprint, RFC 7638
	NotAfter int64    `cbor:"6,keyasint"`
}

// errSealed is the error for every text that cannot be opened. All forgeries get the same one.
var errSealed = errors.New("not one of ours, altered, or for something else")

// seal turns a value into text that can be opened only for the same step.
func seal(k *keyring.Keyring, now time.Time, step string, value any) (string, error) {
	plain, err := cbor.Marshal(value)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(k.SealSignIn(now, plain, []byte(step))), nil
}

// unseal opens the text that seal returned. It accepts only one form of the text, although
// base64 decoders skip line breaks.
func unseal(k *keyring.Keyring, now time.Time, step, text string, value any) error {
	if len(text) > maxSealed || strings.ContainsAny(text, "\r\n") {
		return errSealed
	}
	box, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return errSealed
	}
	plain, err := k.OpenSignIn(now, box, []byte(step))
	if err != nil {
		return errSealed
	}
	if err := decoding.Unmarshal(plain, value); err != nil {
		return errSealed
	}
	return nil
}

// decoding refuses any CBOR that this version would not have written.
var decoding = func() cbor.DecMode {
	mode, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField}.DecMode()
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return mode
}()

// maxClaims is the longest payload of a token, the same as for AssumeRoleWithWebIdentity.
const maxClaims = 20_000

func deflate(plain []byte) []byte {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.BestCompression)
	_, _ = w.Write(plain) // to memory: never fails
	_ = w.Close()
	return out.Bytes()
}

func inflate(data []byte) ([]byte, error) {
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(data)), maxClaims+1))
	if err != nil || len(plain) > maxClaims {
		return nil, errSealed
	}
	return plain, nil
}
