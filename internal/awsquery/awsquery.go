// Package awsquery is the AWS Query protocol: one call in, one XML document out
// (https://smithy.io/2.0/aws/protocols/aws-query-protocol.html, and "Common
// Parameters" and "Common Errors" of the API references).
//
//	POST /                                         or   GET /?Action=…&Version=…&…
//	Content-Type: application/x-www-form-urlencoded
//
//	Action=GetClusterCredentials&Version=2012-12-01&DbUser=alice
//	&DbGroups.DbGroup.1=a&DbGroups.DbGroup.2=b     a list
//	&TagKeys=                                      an empty list
//	&Tags.member.1.Key=k&Tags.member.1.Value=v     a list of structures
//
// The order of parameters means nothing. Everything is bounded (see the constants). A
// request that could be read in two ways is refused, as an *Error with the code and status
// that AWS clients know: a parameter given twice, a list with a gap, text that is not
// UTF-8. Unknown parameters are ignored, as AWS does.
//
// The package knows no actions and no services, does no I/O except on the
// ResponseWriter, and does not authenticate. A signature has to cover everything that
// Parse reads: the query string and the body (package sigv4).
package awsquery

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of what Parse accepts. They are far above what any call needs and keep
// the work that a stranger can ask for small.
const (
	// MaxBytes bounds the body, and the query string, in bytes. The server applies
	// lower bounds for its services before it reads a body.
	MaxBytes = 1 << 20
	// MaxParameters is the number of parameters of one request.
	MaxParameters = 4096
	// MaxName is the length of a parameter's name in bytes, after decoding.
	MaxName = 256
	// MaxValue is the length of a parameter's value in bytes, after decoding: a
	// policy document given to SimulateCustomPolicy has up to 131 072 characters.
	MaxValue = 128 << 10
	// MaxList is the number of members of one list.
	MaxList = 1000
)

// Request is one call. Action or Version is empty if the request does not have it; the
// caller chooses the error.
type Request struct {
	Action  string
	Version string
	// Params holds the other parameters, and is never nil.
	Params *Params
}

// Parse reads the call from r and its body. body is the content of r.Body, which Parse
// does not touch.
//
// A GET has its parameters in the query string and no body. A POST has them in a form
// in the body; parameters in its query string count too (people try the API with curl
// -X POST "…/?Action=…"), but no parameter may be in both. The parameters of a
// presigned URL, X-Amz-…, belong to the signature and are left out. A body has to be
// application/x-www-form-urlencoded in UTF-8, which is also the default.
//
// The error is an *Error.
func Parse(r *http.Request, body []byte) (*Request, error) {
	switch r.Method {
	case http.MethodPost:
		if err := checkForm(r.Header); err != nil {
			return nil, err
		}
	case http.MethodGet, "":
		if len(body) > 0 {
			return nil, malformedHTTP("A GET request must have its parameters in the query string and no body.")
		}
	default:
		return nil, malformedHTTP("The request method must be GET or POST.")
	}
	if len(body) > MaxBytes || len(r.URL.RawQuery) > MaxBytes {
		return nil, &Error{Code: "RequestEntityTooLarge", Status: http.StatusRequestEntityTooLarge,
			Message: "The request must not be larger than " + strconv.Itoa(MaxBytes) + " bytes."}
	}
	form := string(body)
	count := countPairs(r.URL.RawQuery) + countPairs(form)
	if count > MaxParameters {
		return nil, tooManyParameters()
	}
	all := make([]parameter, 0, count)
	all, err := appendPairs(all, r.URL.RawQuery, true)
	if err != nil {
		return nil, err
	}
	if all, err = appendPairs(all, form, false); err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b parameter) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(all); i++ {
		if all[i].name == all[i-1].name {
			return nil, invalidQuery("The parameter " + all[i].name + " must not be given more than once.")
		}
	}
	request := &Request{Params: &Params{}}
	request.Action, all = cut(all, "Action")
	request.Version, all = cut(all, "Version")
	request.Params.sorted = all
	return request, nil
}

// checkForm refuses a body that is not a form, or has an encoding in which its bytes
// have another meaning.
func checkForm(h http.Header) *Error {
	if len(h["Content-Encoding"]) > 0 {
		return malformedHTTP("The request body must not have a Content-Encoding.")
	}
	values := h["Content-Type"]
	switch {
	case len(values) == 0:
		return nil
	case len(values) > 1:
		return malformedHTTP("The request must not have more than one Content-Type.")
	}
	mediaType, rest, more := strings.Cut(values[0], ";")
	if !strings.EqualFold(strings.TrimSpace(mediaType), "application/x-www-form-urlencoded") {
		return malformedHTTP("The Content-Type of the request must be application/x-www-form-urlencoded.")
	}
	for more {
		var attribute string
		attribute, rest, more = strings.Cut(rest, ";")
		name, value, _ := strings.Cut(attribute, "=")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		if strings.EqualFold(strings.TrimSpace(name), "charset") && !strings.EqualFold(value, "utf-8") {
			return malformedHTTP("The charset of the request must be utf-8.")
		}
	}
	return nil
}

// countPairs returns an upper bound of the number of pairs, so that a request with too many
// parameters is refused before it is decoded.
func countPairs(form string) int {
	if form == "" {
		return 0
	}
	return strings.Count(form, "&") + 1
}

// appendPairs decodes application/x-www-form-urlencoded text. It skips empty pairs (a&&b, a
// trailing &). A name without "=" has the empty value, and a semicolon is an ordinary character.
func appendPairs(all []parameter, form string, queryString bool) ([]parameter, error) {
	for form != "" {
		var pair string
		pair, form, _ = strings.Cut(form, "&")
		if pair == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, ok := unescape(rawName)
		switch {
		case !ok:
			return nil, malformedQuery("The name of a parameter is not percent-encoded UTF-8.")
		case name == "":
			return nil, malformedQuery("A parameter has no name.")
		case len(name) > MaxName:
			return nil, invalidQuery("The name of a parameter must not be longer than " + strconv.Itoa(MaxName) + " bytes.")
		}
		value, ok := unescape(rawValue)
		if !ok {
			return nil, malformedQuery("The value of the parameter " + name + " is not percent-encoded UTF-8.")
		}
		if queryString && strings.HasPrefix(name, "X-Amz-") {
			continue
		}
		if len(value) > MaxValue {
			return nil, Invalid(name, "must not be longer than "+strconv.Itoa(MaxValue)+" bytes")
		}
		all = append(all, parameter{name, value})
	}
	return all, nil
}

// unescape decodes %XX and "+", and reports whether that could be done and gave UTF-8.
func unescape(s string) (string, bool) {
	plain, err := url.QueryUnescape(s)
	return plain, err == nil && utf8.ValidString(plain)
}

// cut removes a parameter from the list and returns its value.
func cut(sorted []parameter, name string) (string, []parameter) {
	i, ok := search(sorted, name)
	if !ok {
		return "", sorted
	}
	value := sorted[i].value
	return value, slices.Delete(sorted, i, i+1)
}
