package awsquery

import (
	"net/http"
	"sync"
)

// Error is an error as the client gets it. SDKs turn Code into exceptions, so it has to
// be exactly AWS's.
type Error struct {
	Code    string
	Status  int    // HTTP status; 4xx is the sender's fault, 5xx the receiver's
	Message string // for the caller: the parameter and the rule, never a secret
	// Cause is what led to the error. Optional. It is for logs and errors.Is
	// and never sent.
	Cause error
}

// Error returns the code and the message.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Invalid returns the error for a parameter's value. rule continues a sentence that begins with
// "it", as "must be an integer" does.
func Invalid(parameter, rule string) *Error {
	return &Error{Code: "InvalidParameterValue", Status: http.StatusBadRequest,
		Message: "Invalid value for the parameter " + parameter + ": it " + rule + "."}
}

// Missing returns the error for a missing parameter.
func Missing(parameter string) *Error {
	return &Error{Code: "MissingParameter", Status: http.StatusBadRequest,
		Message: "The request must contain the parameter " + parameter + "."}
}

// malformedQuery: the text cannot be decoded. The status is the documented one.
func malformedQuery(message string) *Error {
	return &Error{Code: "MalformedQueryString", Status: http.StatusNotFound, Message: message}
}

// invalidQuery: the text can be decoded, but the protocol does not allow it.
func invalidQuery(message string) *Error {
	return &Error{Code: "InvalidQueryParameter", Status: http.StatusBadRequest, Message: message}
}

func malformedHTTP(message string) *Error {
	return &Error{Code: "MalformedHttpRequestException", Status: http.StatusBadRequest, Message: message}
}

func tooManyParameters() *Error {
	return invalidQuery("The request has too many parameters.")
}

// WriteError answers a call with an error document:
//
//	<ErrorResponse xmlns="…"><Error><Type>Sender</Type><Code>…</Code><Message>…</Message></Error>
//	<RequestId>…</RequestId></ErrorResponse>
func WriteError(w http.ResponseWriter, namespace, requestID string, err *Error) {
	status := err.Status
	if status < 400 || status > 599 {
		status = http.StatusInternalServerError
	}
	e := Encoder{buf: make([]byte, 0, 512)}
	e.open("ErrorResponse", namespace)
	e.Element("Error", func() {
		if status < 500 {
			e.String("Type", "Sender")
		} else {
			e.String("Type", "Receiver")
		}
		e.String("Code", err.Code)
		e.String("Message", err.Message)
	})
	e.String("RequestId", requestID)
	e.close("ErrorResponse")
	e.send(w, status, requestID)
}

// WriteResult answers a call with its result:
//
//	<ActionResponse xmlns="…"><ActionResult>…</ActionResult>
//	<ResponseMetadata><RequestId>…</RequestId></ResponseMetadata></ActionResponse>
//
// A nil result is that of an action without output, which has no ActionResult;
// clients fail when the element is missing for any other action.
func WriteResult(w http.ResponseWriter, namespace, action, requestID string, result Result) {
	e := encoders.Get().(*Encoder)
	response := action + "Response"
	e.open(response, namespace)
	if result != nil {
		name := action + "Result"
		e.start(name)
		result.EncodeXML(e)
		e.close(name)
	}
	e.start("ResponseMetadata")
	e.String("RequestId", requestID)
	e.close("ResponseMetadata")
	e.close(response)
	e.send(w, http.StatusOK, requestID)
	e.release()
}

// encoders keeps each *Encoder for the next answer.
var encoders = sync.Pool{New: func() any { return &Encoder{buf: make([]byte, 0, 2048)} }} // a credential with its groups fits

// maxKept is the size of a buffer that is kept for the next answer.
const maxKept = 16 << 10

// release keeps an encoder for the next answer, without the password that it may have written.
func (e *Encoder) release() {
	if cap(e.buf) <= maxKept {
		clear(e.buf)
		e.buf = e.buf[:0]
		encoders.Put(e)
	}
}

// Header values that all answers have. They do not change.
var (
	contentType        = []string{"text/xml"}
	cacheControl       = []string{"no-store"}
	contentTypeOptions = []string{"nosniff"}
)

// send is the only function that writes an answer. Answers may hold a password, so caches
// between here and the client must not keep them.
func (e *Encoder) send(w http.ResponseWriter, status int, requestID string) {
	h := w.Header()
	h["Content-Type"], h["Cache-Control"], h["X-Content-Type-Options"] = contentType, cacheControl, contentTypeOptions
	h["X-Amzn-Requestid"] = []string{requestID}
	w.WriteHeader(status)
	w.Write(e.buf) // fails only if the client has left
}
