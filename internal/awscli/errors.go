package awscli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"

	"github.com/daypass/daypass/internal/quote"
)

// APIError is an error that the service answered with. Its text is quoted for a
// terminal where it is printed.
type APIError struct {
	Operation string
	Code      string
	Message   string
	// Retries is how often the call was tried again before it was given up, or
	// -1 when trying again was no use.
	Retries int
}

func (e *APIError) Error() string {
	retries := ""
	if e.Retries >= 0 {
		retries = fmt.Sprintf(" (reached max retries: %d)", e.Retries)
	}
	return fmt.Sprintf("An error occurred (%s) when calling the %s operation%s: %s", quote.Terminal(e.Code), e.Operation, retries, quote.Terminal(e.Message))
}

// Plainly gives an error of Client the words of commands that are not the AWS CLI's:
// the thing, the problem and what to do, without its capitals.
func Plainly(err error) error {
	var f *failure
	var api *APIError
	switch {
	case errors.As(err, &api):
		// What a caller added around it stays.
		text := fmt.Sprintf("%s: %s: %s", api.Operation, quote.Terminal(api.Code), quote.Terminal(api.Message))
		if api.Retries > 0 {
			text += fmt.Sprintf(" (tried %d times)", api.Retries+1)
		}
		return errors.New(strings.Replace(err.Error(), api.Error(), text, 1))
	case errors.As(err, &f) && f.plain != "":
		return errors.New(strings.Replace(err.Error(), f.message, f.plain, 1))
	}
	return err
}

// ExitCode returns the exit code that the AWS CLI has for an error of Client.
func ExitCode(err error) int {
	var f *failure
	if errors.As(err, &f) {
		return f.code
	}
	return explain(err).code
}

// Unreachable gives an error of a request to url, which got no answer, the text and the
// exit code that it has for Client.
func Unreachable(url string, err error) error { return explain(&transportError{url, err}) }

func asFailure(err error) error {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	return explain(err)
}

// explain gives an error the text and the exit code of the AWS CLI. The cause
// of an error of the service is an *APIError.
func explain(err error) *failure {
	if api := asAPIError(err); api != nil {
		return &failure{code: ExitService, message: api.Error(), cause: api}
	}
	f := &failure{code: ExitGeneral, message: err.Error(), cause: err}
	var transport *transportError
	if !errors.As(err, &transport) {
		return f
	}
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var op *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		f.code, f.message = ExitInterrupted, "interrupted"
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert):
		f.message = fmt.Sprintf("SSL validation failed for %s %s", transport.url, quote.Terminal(innermost(transport.err).Error()))
		f.plain = fmt.Sprintf("%s: its certificate is not accepted (%s): name its CA with --ca-bundle, AWS_CA_BUNDLE or ca_bundle of the profile", transport.url, quote.Terminal(innermost(transport.err).Error()))
	case errors.As(err, &op) && op.Op == "dial" && op.Timeout():
		f.message = fmt.Sprintf("Connect timeout on endpoint URL: %q", transport.url)
		f.plain = fmt.Sprintf("%s: does not answer: check endpoint_url, and whether the server can be reached", transport.url)
	case errors.As(err, &op) && op.Op == "dial":
		f.message = fmt.Sprintf("Could not connect to the endpoint URL: %q", transport.url)
		f.plain = fmt.Sprintf("%s: cannot connect (%s): check endpoint_url, and whether the server runs", transport.url, quote.Terminal(innermost(op).Error()))
	case isTimeout(err):
		f.message = fmt.Sprintf("Read timeout on endpoint URL: %q", transport.url)
		f.plain = fmt.Sprintf("%s: does not answer in time: try again", transport.url)
	default:
		f.message = fmt.Sprintf("Connection was closed before we received a valid response from endpoint URL: %q. (%s)", transport.url, quote.Terminal(innermost(transport.err).Error()))
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

// asAPIError finds the answer of a service in an error, and the call that it
// answered: the innermost, because finding credentials may call others.
func asAPIError(err error) *APIError {
	var answer smithy.APIError
	if !errors.As(err, &answer) {
		return nil
	}
	api := &APIError{Code: answer.ErrorCode(), Message: answer.ErrorMessage(), Retries: -1}
	var exhausted *retry.MaxAttemptsError
	if errors.As(err, &exhausted) {
		api.Retries = exhausted.Attempt - 1
	}
	var call *smithy.OperationError
	for rest := err; errors.As(rest, &call); rest = call.Err {
		api.Operation = call.OperationName
	}
	return api
}

// credentialsError explains why no credentials could be had.
func credentialsError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &failure{code: ExitInterrupted, message: "interrupted", cause: err}
	}
	if api := asAPIError(err); api != nil {
		return &failure{code: ExitService, message: api.Error(), cause: api}
	}
	var explained *failure
	if errors.As(err, &explained) {
		return explained
	}
	// The last place the SDK looks is the instance it runs on: when that has
	// nothing to say, there was nothing before it either.
	var call *smithy.OperationError
	if errors.As(err, &call) && call.ServiceID == "ec2imds" {
		return &failure{code: ExitConfiguration, message: `Unable to locate credentials. You can configure credentials by running "aws configure".`, cause: err,
			plain: "no access key is configured: name a profile with --profile or AWS_PROFILE, or make one with `aws configure`"}
	}
	return &failure{code: ExitConfiguration, message: fmt.Sprintf("Error when retrieving credentials: %v", err), cause: err}
}
