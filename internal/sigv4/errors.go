package sigv4

import (
	"errors"
	"fmt"
	"net/http"
)

// One sentinel, for errors.Is, for each reason why a signature is refused. The *Error
// around it has the message for the caller.
var (
	// The request has no Authorization header and no X-Amz- parameter of a presigned URL.
	// Actions that take unsigned calls branch on it.
	ErrUnsigned = errors.New("request is not signed")

	// IncompleteSignature: the claim cannot be parsed.
	ErrTwoSignatures = errors.New("request is signed in the header and in the query string")
	ErrDuplicate     = errors.New("part of the signature is given more than once")
	ErrMalformed     = errors.New("authorization header is malformed")
	ErrAlgorithm     = errors.New("signing algorithm is not AWS4-HMAC-SHA256")
	ErrIncomplete    = errors.New("part of the signature is missing")
	ErrCredential    = errors.New("credential is not five elements")
	ErrDate          = errors.New("date is missing or malformed")
	ErrExpires       = errors.New("X-Amz-Expires is out of range")
	ErrSignedHeaders = errors.New("list of signed headers is malformed")

	// MalformedQueryString: the query string has no canonical form.
	ErrQuery = errors.New("query string is malformed")

	// SignatureDoesNotMatch: the claim is false or incomplete.
	ErrScopeDate       = errors.New("credential scope has another date than the request")
	ErrScopeRegion     = errors.New("credential scope has another region")
	ErrScopeService    = errors.New("credential scope has another service")
	ErrScopeTerminator = errors.New("credential scope does not end in aws4_request")
	ErrExpired         = errors.New("signature is expired")
	ErrNotYetCurrent   = errors.New("signature is not yet current")
	ErrHostUnsigned    = errors.New("host is not signed")
	ErrHeaderUnsigned  = errors.New("x-amz- header is not signed")
	ErrHeaderAbsent    = errors.New("signed header is absent")
	ErrPayloadUnsigned = errors.New("payload is not signed")
	ErrPayloadHash     = errors.New("payload has another hash than stated")
	ErrSignature       = errors.New("signature does not match")

	// Errors of a lookup. Other errors of a lookup are returned wrapped.
	ErrUnknownKey   = errors.New("access key is unknown or inactive")              // InvalidClientTokenId
	ErrInvalidToken = errors.New("session token is invalid or not of this key")    // InvalidClientTokenId
	ErrTokenExpired = errors.New("session token, and the access key, are expired") // ExpiredToken
)

// Error is a refusal with the message for an AWS client: "Common Errors" of the API
// references, "Troubleshoot Signature Version 4 signing" in the IAM User Guide. It
// wraps one of the sentinels.
type Error struct {
	Code    string // AWS error code
	Status  int    // HTTP status
	Message string // quotes nothing of the request but times and names of headers, services and regions
	reason  error
}

// Error returns the reason; it has no secrets.
func (e *Error) Error() string { return e.reason.Error() }

// Unwrap returns the sentinel.
func (e *Error) Unwrap() error { return e.reason }

// The texts that say nothing about the particular request.
const (
	textUnsigned     = "Request is missing Authentication Token"
	textInvalidToken = "The security token included in the request is invalid."
	textTokenExpired = "The security token included in the request is expired"
	textSignature    = "The request signature we calculated does not match the signature you provided. " +
		"Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)

// refuse makes the error for a sentinel.
func refuse(reason error, message string) *Error {
	e := &Error{Message: message, reason: reason}
	switch reason {
	case ErrUnsigned:
		e.Code, e.Status = "MissingAuthenticationToken", http.StatusForbidden
	case ErrTwoSignatures, ErrDuplicate, ErrMalformed, ErrAlgorithm, ErrIncomplete, ErrCredential, ErrDate,
		ErrExpires, ErrSignedHeaders:
		e.Code, e.Status = "IncompleteSignature", http.StatusBadRequest
	case ErrQuery:
		// The status is the documented one.
		e.Code, e.Status = "MalformedQueryString", http.StatusNotFound
	case ErrUnknownKey, ErrInvalidToken:
		e.Code, e.Status = "InvalidClientTokenId", http.StatusForbidden
	case ErrTokenExpired:
		e.Code, e.Status = "ExpiredToken", http.StatusForbidden
	default:
		e.Code, e.Status = "SignatureDoesNotMatch", http.StatusForbidden
	}
	return e
}

// signedFor adds the name that the request was signed for, if it is a plausible one.
func (e *Error) signedFor(name, problem string) *Error {
	if !IsScopeName(name) {
		return e
	}
	text := "signed for '" + name + "', " + problem
	e.Message += " The request is " + text + "."
	e.reason = fmt.Errorf("%w: %s", e.reason, text)
	return e
}

// IsScopeName reports whether a service or region of a credential scope can be one of
// AWS's.
func IsScopeName(name string) bool {
	for i := 0; i < len(name); i++ {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return name != "" && len(name) <= 63
}

// refuseKey turns an error of a lookup into an Error, and wraps it.
func refuseKey(err error) error {
	var e *Error
	switch {
	case errors.Is(err, ErrUnknownKey):
		e = refuse(ErrUnknownKey, textInvalidToken)
	case errors.Is(err, ErrInvalidToken):
		e = refuse(ErrInvalidToken, textInvalidToken)
	case errors.Is(err, ErrTokenExpired):
		e = refuse(ErrTokenExpired, textTokenExpired)
	default:
		return fmt.Errorf("looking up access key: %w", err)
	}
	e.reason = err
	return e
}
