package signin

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// The client IDs that AWS's tools and SDKs use.
const (
	sameDevice  = "arn:aws:signin:::devtools/same-device"
	crossDevice = "arn:aws:signin:::devtools/cross-device"
)

// clientID returns the client ID that the request was sent with.
func (q *request) clientID() string {
	if q.Remote {
		return crossDevice
	}
	return sameDevice
}

// requestError is why a client's request is refused.
type requestError struct{ parameter, problem string }

func (e *requestError) Error() string { return e.parameter + " " + e.problem }

// parseRequest reads the query of /v1/authorize: RFC 6749, section 4.1.1, and RFC 7636,
// section 4.3, as AWS's clients send it. Each parameter appears exactly once. The server must
// never redirect to a redirect_uri that it does not accept.
//
// redirect_uri leads to the browser's own machine, by address and with a port, because a
// name could be made to resolve elsewhere. A client on another machine gets no redirect;
// its redirect_uri is our own page.
func parseRequest(query, base string) (*request, error) {
	q, values, err := parseQuery(query)
	if err != nil {
		return nil, err
	}
	switch values.Get("client_id") {
	case sameDevice:
		if !isLoopbackRedirect(q.Redirect) {
			return nil, errRedirect
		}
	case crossDevice:
		q.Remote = true
		if q.Redirect != base+pathConfirmation {
			return nil, &requestError{"redirect_uri", "must be " + base + pathConfirmation + ": the client was given another address of this server"}
		}
	default:
		return nil, &requestError{"client_id", "is not that of a client known here"}
	}
	return q, nil
}

var errRedirect = &requestError{"redirect_uri", "must be http://127.0.0.1:PORT/oauth/callback"}

// parseClientRequest reads the query of /authorize, which clients of SSO OIDC send. open opens
// a client ID.
func parseClientRequest(query string, open func(clientID string) (*registration, error)) (*request, error) {
	q, values, err := parseQuery(query)
	if err != nil {
		return nil, err
	}
	if q.Client, err = open(values.Get("client_id")); err != nil {
		return nil, &requestError{"client_id", "is not that of a client that was registered here, or has expired"}
	}
	if !isLoopbackRedirect(q.Redirect) {
		return nil, errRedirect
	}
	for scope := range strings.FieldsSeq(values.Get("scopes")) {
		if scope != accountScope {
			return nil, &requestError{"scopes", "must be " + accountScope}
		}
	}
	return q, nil
}

// parseQuery reads what the requests of all clients have in common.
func parseQuery(query string) (*request, url.Values, error) {
	if len(query) > 8<<10 {
		return nil, nil, &requestError{"the query", "is too long"}
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, nil, &requestError{"the query", "is malformed"}
	}
	for name, list := range values {
		if len(list) != 1 {
			return nil, nil, &requestError{quoted(name), "is duplicated"}
		}
	}
	q := &request{Redirect: values.Get("redirect_uri"), State: values.Get("state")}
	if values.Get("response_type") != "code" {
		return nil, nil, &requestError{"response_type", "must be code"}
	}
	if len(q.State) == 0 || len(q.State) > 512 || strings.ContainsFunc(q.State, func(r rune) bool { return r < '!' || r > '~' }) {
		return nil, nil, &requestError{"state", "must be 1 to 512 characters of ASCII without spaces"}
	}
	// AWS's clients of the sign-in service write SHA-256 where RFC 7636 has S256.
	if method := values.Get("code_challenge_method"); method != "SHA-256" && method != "S256" {
		return nil, nil, &requestError{"code_challenge_method", "must be SHA-256"}
	}
	q.Challenge, err = base64.RawURLEncoding.Strict().DecodeString(values.Get("code_challenge"))
	if err != nil || len(q.Challenge) != 32 || strings.ContainsAny(values.Get("code_challenge"), "\r\n") {
		return nil, nil, &requestError{"code_challenge", "must be a SHA-256 in base64url without padding"}
	}
	return q, values, nil
}

// isLoopbackRedirect accepts only one spelling of the address.
func isLoopbackRedirect(text string) bool {
	const prefix, suffix = "http://", "/oauth/callback"
	middle, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return false
	}
	middle, ok = strings.CutSuffix(middle, suffix)
	if !ok {
		return false
	}
	address, err := netip.ParseAddrPort(middle)
	return err == nil && address.Addr() == netip.AddrFrom4([4]byte{127, 0, 0, 1}) && address.Port() != 0 && address.String() == middle
}

// quoted returns text from a stranger, shortened and made printable.
func quoted(text string) string { return fmt.Sprintf("%.64q", text) }
