package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/sigv4"
)

// Answers that the packages below have no error for: Redshift API Reference, "Common
// Errors".
var (
	errNoSuchPath = &awsquery.Error{Code: "UnknownOperationException", Status: http.StatusNotFound,
		Message: "The API is served at the path / only."}
	errMethod = &awsquery.Error{Code: "MethodNotAllowed", Status: http.StatusMethodNotAllowed,
		Message: "The API takes GET and POST requests only."}
	errWebPage = &awsquery.Error{Code: "AccessDenied", Status: http.StatusForbidden,
		Message: "The API does not take requests that a web page causes. AWS SDKs for browsers do not work with it."}
	errBodyTooLarge = &awsquery.Error{Code: "RequestEntityTooLarge", Status: http.StatusRequestEntityTooLarge,
		Message: "The request is larger than this action can need."}
	errBodyUnread = &awsquery.Error{Code: "IncompleteBody", Status: http.StatusBadRequest,
		Message: "The request ended before its body did."}
	errMissingAction = &awsquery.Error{Code: "MissingAction", Status: http.StatusBadRequest,
		Message: "The request must contain the parameter Action."}
	errInternal = &awsquery.Error{Code: "InternalFailure", Status: http.StatusInternalServerError,
		Message: "The request failed because of an internal error. The server's log has the cause under this request id."}
	// errGone is for the audit line only, since the client has left.
	errGone = &awsquery.Error{Code: "RequestAborted", Status: http.StatusBadRequest,
		Message: "The caller closed the connection before there was an answer."}
	// errNoAudit is a 5xx: clients try again, and succeed once the disk has space.
	errNoAudit = &awsquery.Error{Code: "ServiceUnavailable", Status: http.StatusServiceUnavailable,
		Message: "The request was not carried out because it could not be recorded."}
	// errUnrecorded is the answer when credentials were revoked but the audit log
	// failed. The revocation stays in force.
	errUnrecorded = &awsquery.Error{Code: "ServiceUnavailable", Status: http.StatusServiceUnavailable,
		Message: "The request was carried out, but could not be recorded. It may be repeated."}
)

func errInvalidAction(action, version string) error {
	if version == "" {
		version = "NO_VERSION_SPECIFIED"
	}
	return &awsquery.Error{Code: "InvalidAction", Status: http.StatusBadRequest,
		Message: "Could not find operation " + action + " for version " + version}
}

// errClusterNotFound has Redshift's text. SDKs recognise the exception by this code,
// which differs from its name.
func errClusterNotFound(identifier string) error {
	return &awsquery.Error{Code: "ClusterNotFound", Status: http.StatusNotFound,
		Message: "Cluster " + identifier + " not found."}
}

func errDomainNotFound(domain string) error {
	return &awsquery.Error{Code: "CustomDomainAssociationNotFoundFault", Status: http.StatusNotFound,
		Message: "Custom domain " + domain + " not found."}
}

// panicError is the value that a call panicked with.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// writeError sends the answer of a failed call. A client of one of AWS's JSON
// protocols, recognised by a header, has called the wrong endpoint and gets JSON, since
// it cannot read XML.
func (c *call) writeError(answer *awsquery.Error) {
	if c.http.Header.Get("X-Amz-Target") == "" {
		awsquery.WriteError(c.writer, c.service.namespace, c.id, answer)
		return
	}
	body, err := json.Marshal(map[string]string{"__type": answer.Code, "message": answer.Message})
	if err != nil {
		panic("internal error: " + err.Error())
	}
	h := c.writer.Header()
	h.Set("Content-Type", "application/x-amz-json-1.1")
	h.Set("X-Amzn-ErrorType", answer.Code)
	h.Set("X-Amzn-RequestId", c.id)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	c.writer.WriteHeader(answer.Status)
	_, _ = c.writer.Write(body) // fails only if the client has left
}

// answerTo returns the error that the caller may see, or nil for an internal error.
func answerTo(err error) *awsquery.Error {
	if answer, ok := errors.AsType[*awsquery.Error](err); ok {
		return answer
	}
	if signature, ok := errors.AsType[*sigv4.Error](err); ok {
		return &awsquery.Error{Code: signature.Code, Status: signature.Status, Message: signature.Message}
	}
	if errors.Is(err, credential.ErrTooLong) {
		return awsquery.Invalid("DbGroups", "must have fewer characters in all: the password would be longer than "+
			strconv.Itoa(credential.MaxLength)+" characters. 2400 characters of groups fit")
	}
	if errors.Is(err, credential.ErrNoKey) {
		return &awsquery.Error{Code: "ServiceUnavailable", Status: http.StatusServiceUnavailable,
			Message: "This server has no key that may sign credentials now. Try again, or ask another server."}
	}
	return nil
}

// translate returns the caller's answer, and logs the cause of an internal error.
func (h *Handler) translate(c *call, err error) *awsquery.Error {
	if answer := answerTo(err); answer != nil {
		return answer
	}
	attributes := []any{"request", c.id, "err", err}
	if panicked, ok := errors.AsType[*panicError](err); ok {
		attributes = append(attributes, "stack", string(panicked.stack))
	}
	h.config.Log.ErrorContext(c.http.Context(), "call failed", attributes...)
	return errInternal
}
