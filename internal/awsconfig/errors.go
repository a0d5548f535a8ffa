package awsconfig

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/daypass/daypass/internal/quote"
)

// The exit codes of version 2 of the AWS CLI.
const (
	ExitUsage         = 252 // the command line or a parameter is wrong
	ExitConfiguration = 253 // configuration or credentials are missing or wrong
	ExitService       = 254 // the service answered with an error
	ExitGeneral       = 255 // anything else
	ExitInterrupted   = 130 // SIGINT
)

// Failure is an error with the AWS CLI's exit code and message.
type Failure struct {
	Code    int
	Message string
	Plain   string // the message that Plainly uses; empty: Message
	Usage   bool   // whether the AWS CLI prints its usage first
	Err     error  // the cause, nil if there is none
}

func (f *Failure) Error() string { return f.Message }
func (f *Failure) Unwrap() error { return f.Err }

func fail(code int, format string, args ...any) error {
	return &Failure{Code: code, Message: fmt.Sprintf(format, args...)}
}

// TransportError is the error of a request that got no answer.
type TransportError struct {
	URL string
	Err error
}

func (e *TransportError) Error() string { return e.Err.Error() }
func (e *TransportError) Unwrap() error { return e.Err }

// APIError is an error that the service returned. Its text is quoted for a terminal when it is
// printed.
type APIError struct {
	Operation string
	Code      string
	Message   string
	// Retries is the number of retries, or -1 if the error could not be retried.
	Retries int
}

func (e *APIError) Error() string {
	retries := ""
	if e.Retries >= 0 {
		retries = fmt.Sprintf(" (reached max retries: %d)", e.Retries)
	}
	return fmt.Sprintf("An error occurred (%s) when calling the %s operation%s: %s", quote.Terminal(e.Code), e.Operation, retries, quote.Terminal(e.Message))
}

// Plainly rewords an error for commands other than the AWS CLI's: the thing, the problem and the
// next step, without capitals. It keeps the text that callers added to the error.
func Plainly(err error) error {
	var f *Failure
	var api *APIError
	switch {
	case errors.As(err, &api):
		text := fmt.Sprintf("%s: %s: %s", api.Operation, quote.Terminal(api.Code), quote.Terminal(api.Message))
		if api.Retries > 0 {
			text += fmt.Sprintf(" (tried %d times)", api.Retries+1)
		}
		return errors.New(strings.Replace(err.Error(), api.Error(), text, 1))
	case errors.As(err, &f) && f.Plain != "":
		return errors.New(strings.Replace(err.Error(), f.Message, f.Plain, 1))
	case f == nil && Explain(err).Plain != "":
		return errors.New(Explain(err).Plain)
	}
	return err
}

// ExitCode returns the AWS CLI's exit code for an error.
func ExitCode(err error) int { return Explain(err).Code }

// Explain returns the *Failure in an error of the SDK or of this package, or makes one. It
// distinguishes an answer of the service, which becomes an *APIError, a request without an
// answer, and anything else.
func Explain(err error) *Failure {
	if known, ok := errors.AsType[*Failure](err); ok {
		return known
	}
	if api := asAPIError(err); api != nil {
		return &Failure{Code: ExitService, Message: api.Error(), Err: api}
	}
	f := &Failure{Code: ExitGeneral, Message: err.Error(), Err: err}
	var transport *TransportError
	var request *url.Error
	var answer *smithy.DeserializationError
	switch {
	case errors.As(err, &transport):
	case errors.As(err, &request):
		transport = &TransportError{URL: request.URL, Err: request.Err}
	case errors.As(err, &answer):
		f.Plain = fmt.Sprintf("the answer is not one of this API (%s): check endpoint_url", quote.Terminal(innermost(answer).Error()))
		return f
	default:
		return f
	}
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var op *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		f.Code, f.Message = ExitInterrupted, "interrupted"
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert):
		f.Message = fmt.Sprintf("SSL validation failed for %s %s", transport.URL, quote.Terminal(innermost(transport.Err).Error()))
		f.Plain = fmt.Sprintf("%s: its certificate is not accepted (%s): name its CA with --ca-bundle, AWS_CA_BUNDLE or ca_bundle of the profile", transport.URL, quote.Terminal(innermost(transport.Err).Error()))
	case errors.As(err, &op) && op.Op == "proxyconnect":
		f.Message = fmt.Sprintf("Failed to connect to proxy URL: %q", transport.URL)
		f.Plain = fmt.Sprintf("%s: cannot connect through the web proxy of HTTPS_PROXY (%s): correct HTTPS_PROXY, or name the server in NO_PROXY", transport.URL, quote.Terminal(innermost(op).Error()))
	case errors.As(err, &op) && op.Op == "dial" && op.Timeout():
		f.Message = fmt.Sprintf("Connect timeout on endpoint URL: %q", transport.URL)
		f.Plain = fmt.Sprintf("%s: does not answer: check endpoint_url, and whether the server can be reached", transport.URL)
	case errors.As(err, &op) && op.Op == "dial":
		f.Message = fmt.Sprintf("Could not connect to the endpoint URL: %q", transport.URL)
		f.Plain = fmt.Sprintf("%s: cannot connect (%s): check endpoint_url, and whether the server runs", transport.URL, quote.Terminal(innermost(op).Error()))
	case isTimeout(err):
		f.Message = fmt.Sprintf("Read timeout on endpoint URL: %q", transport.URL)
		f.Plain = fmt.Sprintf("%s: does not answer in time: try again", transport.URL)
	default:
		f.Message = fmt.Sprintf("Connection was closed before we received a valid response from endpoint URL: %q. (%s)", transport.URL, quote.Terminal(innermost(transport.Err).Error()))
	}
	return f
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// asAPIError finds a service's answer in an error, and the name of the call. It uses the
// innermost call, because finding credentials may call other services.
func asAPIError(err error) *APIError {
	answer, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return nil
	}
	api := &APIError{Code: answer.ErrorCode(), Message: answer.ErrorMessage(), Retries: -1}
	// UnknownError is the SDK's code if the answer has no error code.
	var page *smithyhttp.ResponseError
	if api.Code == "UnknownError" && errors.As(err, &page) {
		api.Message = fmt.Sprintf("status %d without an error of this API: check endpoint_url", page.HTTPStatusCode())
	}
	if exhausted, ok := errors.AsType[*retry.MaxAttemptsError](err); ok {
		api.Retries = exhausted.Attempt - 1
	}
	var call *smithy.OperationError
	for rest := err; errors.As(rest, &call); rest = call.Err {
		api.Operation = call.OperationName
	}
	return api
}

// credentialsError explains why no credentials are available.
func credentialsError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &Failure{Code: ExitInterrupted, Message: "interrupted", Err: err}
	}
	if api := asAPIError(err); api != nil {
		return &Failure{Code: ExitService, Message: api.Error(), Err: api}
	}
	if explained, ok := errors.AsType[*Failure](err); ok {
		return explained
	}
	// The SDK asks the metadata service of the EC2 instance last, so an error of that service
	// means that all earlier places have no credentials either.
	if call, ok := errors.AsType[*smithy.OperationError](err); ok && call.ServiceID == "ec2imds" {
		return &Failure{Code: ExitConfiguration, Message: `Unable to locate credentials. You can configure credentials by running "aws configure".`, Err: err,
			Plain: "no access key is configured: name a profile with --profile or AWS_PROFILE, or store one with `aws configure`"}
	}
	failure := &Failure{Code: ExitConfiguration, Message: fmt.Sprintf("Error when retrieving credentials: %v", err), Err: err}
	// The SDK keeps only the text of the underlying error.
	if text := err.Error(); strings.Contains(text, "create oauth2 token") && strings.Contains(text, "insufficient permissions") {
		failure.Plain = "the keys were not refreshed: the IAM role does not let you in any more: sign in again with `daypass login` to see why, and which other IAM roles are open to you"
	}
	return failure
}
