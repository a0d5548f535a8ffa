package sigv4

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	terminator = "aws4_request"
	// basicFormat is the ISO 8601 basic format of the time in requests.
	basicFormat = "20060102T150405Z"

	// maxAuthorization bounds the Authorization header: a credential, a
	// signature and the names of some headers.
	maxAuthorization = 8 << 10
	// maxExpires is the longest life of a presigned URL in seconds, a week.
	maxExpires = 604800
)

// The query parameters that sign a presigned URL.
const (
	queryAlgorithm     = "X-Amz-Algorithm"
	queryCredential    = "X-Amz-Credential"
	queryDate          = "X-Amz-Date"
	queryExpires       = "X-Amz-Expires"
	querySignedHeaders = "X-Amz-SignedHeaders"
	queryToken         = "X-Amz-Security-Token"
	querySignature     = "X-Amz-Signature"
	// queryContentHash does not make a URL presigned; it is compared with the body.
	queryContentHash = "X-Amz-Content-Sha256"
)

// authorization is the claim of a request: well-formed, but not verified.
type authorization struct {
	accessKeyID string
	// The credential scope and its parts.
	scope, date, region, service, terminator string

	signedHeaders string
	signature     string
	token         string
	timestamp     string // as in the string to sign
	time          time.Time
	expires       int // seconds; 0: not given
	presigned     bool
	// contentHash is the query string's X-Amz-Content-Sha256.
	contentHash string
	query       []queryPair
}

// readAuthorization finds the signature of a request, which must be the only one.
func readAuthorization(r *http.Request) (*authorization, error) {
	a := new(authorization)
	var err error
	if a.query, err = parseQuery(r.URL.RawQuery); err != nil {
		return nil, err
	}
	signing, err := signingParameters(a.query)
	if err != nil {
		return nil, err
	}
	a.contentHash = signing.contentHash
	headers := r.Header["Authorization"]
	switch {
	case len(headers) == 0 && !signing.any:
		return nil, refuse(ErrUnsigned, textUnsigned)
	case len(headers) > 1:
		return nil, refuse(ErrDuplicate, "The request must not have more than one Authorization header.")
	case len(headers) == 1 && signing.any:
		return nil, refuse(ErrTwoSignatures,
			"The request must be signed in the Authorization header or in the query string, not in both.")
	case signing.any:
		err = a.fromQuery(r.Header, signing)
	default:
		err = a.fromHeader(r.Header, headers[0])
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// fromHeader reads
//
//	Authorization: AWS4-HMAC-SHA256 Credential=…/20150830/us-east-1/sts/aws4_request,
//	    SignedHeaders=host;x-amz-date, Signature=…
//
// with its three parts in any order and blanks where clients put them.
func (a *authorization) fromHeader(h http.Header, value string) error {
	if len(value) > maxAuthorization {
		return refuse(ErrMalformed, "Authorization header is too long.")
	}
	value = strings.Trim(value, " \t")
	if value == "" {
		return refuse(ErrMalformed, "Authorization header cannot be empty.")
	}
	scheme, rest, _ := strings.Cut(value, " ")
	if scheme != algorithm {
		return refuse(ErrAlgorithm, "Unsupported AWS 'algorithm' in the Authorization header: it must be "+algorithm+".")
	}
	var credential string
	var seen [3]bool
	for more := strings.Trim(rest, " \t") != ""; more; {
		var part string
		part, rest, more = strings.Cut(rest, ",")
		name, value, ok := strings.Cut(strings.Trim(part, " \t"), "=")
		if !ok {
			return refuse(ErrMalformed, "Authorization header must be a list of Key=Value pairs.")
		}
		var which int
		var to *string
		switch name {
		case "Credential":
			which, to = 0, &credential
		case "SignedHeaders":
			which, to = 1, &a.signedHeaders
		case "Signature":
			which, to = 2, &a.signature
		default:
			return refuse(ErrMalformed, "Authorization header has a part other than Credential, SignedHeaders and Signature.")
		}
		if seen[which] {
			return refuse(ErrDuplicate, "Authorization header must not have '"+name+"' more than once.")
		}
		seen[which], *to = true, value
	}
	if missing := missingParts("Authorization header requires '%' parameter.",
		"Credential", credential, "Signature", a.signature, "SignedHeaders", a.signedHeaders); missing != "" {
		return refuse(ErrIncomplete, missing)
	}
	if err := a.setCredential(credential); err != nil {
		return err
	}
	token, _, err := only(h, "X-Amz-Security-Token")
	if err != nil {
		return err
	}
	a.token = token
	return a.setHeaderDate(h)
}

// setHeaderDate reads the time from X-Amz-Date or else from Date, which may have either of two
// formats. The signature covers the time in either case, because it is part of the string to sign.
func (a *authorization) setHeaderDate(h http.Header) error {
	value, ok, err := only(h, "X-Amz-Date")
	if err != nil {
		return err
	}
	if ok {
		return a.setDate(value)
	}
	value, ok, err = only(h, "Date")
	switch {
	case err != nil:
		return err
	case !ok:
		return refuse(ErrDate, "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	}
	if t, err := http.ParseTime(value); err == nil {
		value = t.UTC().Format(basicFormat)
	}
	return a.setDate(value)
}

// fromQuery reads the signature of a presigned URL. Without X-Amz-Expires, which
// not every SDK sends for services other than S3, the URL lives as long as a
// request signed in the header.
func (a *authorization) fromQuery(h http.Header, p signing) error {
	if missing := missingParts("AWS query-string parameters must include '%'.",
		queryAlgorithm, p.algorithm, queryCredential, p.credential, queryDate, p.date,
		querySignature, p.signature, querySignedHeaders, p.signedHeaders); missing != "" {
		return refuse(ErrIncomplete, missing)
	}
	if p.algorithm != algorithm {
		return refuse(ErrAlgorithm, "Unsupported AWS 'algorithm' in X-Amz-Algorithm: it must be "+algorithm+".")
	}
	if len(h["X-Amz-Security-Token"]) > 0 {
		return refuse(ErrDuplicate, "The session token of a presigned request must be in the query string only.")
	}
	a.presigned = true
	a.signedHeaders, a.signature, a.token = p.signedHeaders, p.signature, p.token
	if p.hasExpires {
		// Atoi accepts signs, but no client sends "+60".
		n, err := strconv.Atoi(p.expires)
		if err != nil || p.expires[0] == '+' || n < 1 || n > maxExpires {
			return refuse(ErrExpires, "X-Amz-Expires must be a number of seconds from 1 to "+strconv.Itoa(maxExpires)+".")
		}
		a.expires = n
	}
	if err := a.setCredential(p.credential); err != nil {
		return err
	}
	return a.setDate(p.date)
}

// setCredential splits keyid/date/region/service/aws4_request.
func (a *authorization) setCredential(credential string) error {
	if strings.Count(credential, "/") != 4 || credential[0] == '/' {
		return refuse(ErrCredential,
			"Credential must have exactly 5 slash-delimited elements: keyid/date/region/service/term.")
	}
	a.accessKeyID, a.scope, _ = strings.Cut(credential, "/")
	date, rest, _ := strings.Cut(a.scope, "/")
	region, rest, _ := strings.Cut(rest, "/")
	a.date, a.region = date, region
	a.service, a.terminator, _ = strings.Cut(rest, "/")
	return nil
}

func (a *authorization) setDate(value string) error {
	// Parse alone would take fractions of a second too.
	t, err := time.Parse(basicFormat, value)
	if err != nil || len(value) != len(basicFormat) {
		return refuse(ErrDate, "Date must be in ISO-8601 'basic format': YYYYMMDD'T'HHMMSS'Z'.")
	}
	a.timestamp, a.time = value, t
	return nil
}

// only returns the value of a header that may appear only once. An empty value counts as absent.
func only(h http.Header, name string) (value string, ok bool, err error) {
	values := h[name]
	switch {
	case len(values) > 1:
		return "", false, refuse(ErrDuplicate, "The request must not have more than one "+name+" header.")
	case len(values) == 0 || values[0] == "":
		return "", false, nil
	}
	return values[0], true, nil
}

// missingParts takes names and values in turn and returns the error for the empty
// values.
func missingParts(text string, namesAndValues ...string) string {
	var missing []string
	for i := 0; i < len(namesAndValues); i += 2 {
		if namesAndValues[i+1] == "" {
			missing = append(missing, strings.Replace(text, "%", namesAndValues[i], 1))
		}
	}
	return strings.Join(missing, " ")
}
