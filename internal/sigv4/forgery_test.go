package sigv4_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/sigv4"
)

const (
	form   = "Action=GetClusterCredentials&Version=2012-12-01&DbUser=alice"
	target = "http://db.example.com:8440/"

	incomplete = "IncompleteSignature"
	mismatch   = "SignatureDoesNotMatch"
)

func post(t *testing.T, s signing) (*http.Request, []byte) {
	r := newRequest(t, "POST", target, form)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return signHeader(t, r, form, s)
}

func get(t *testing.T, s signing) (*http.Request, []byte) {
	return presign(t, newRequest(t, "GET", target+"?"+form+"&X-Amz-Expires=60", ""), "", s)
}

// inHeader changes the Authorization header.
func inHeader(old, new string) func(*testing.T, *http.Request) {
	return func(t *testing.T, r *http.Request) {
		before := r.Header.Get("Authorization")
		after := strings.Replace(before, old, new, 1)
		if before == after {
			t.Fatalf("%q is not in %q", old, before)
		}
		r.Header.Set("Authorization", after)
	}
}

// inQuery changes the query string.
func inQuery(old, new string) func(*testing.T, *http.Request) {
	return func(t *testing.T, r *http.Request) {
		before := r.URL.RawQuery
		r.URL.RawQuery = strings.Replace(before, old, new, 1)
		if before == r.URL.RawQuery {
			t.Fatalf("%q is not in %q", old, before)
		}
	}
}

func set(name string, values ...string) func(*testing.T, *http.Request) {
	return func(_ *testing.T, r *http.Request) {
		if r.Header[name] = values; len(values) == 0 {
			delete(r.Header, name)
		}
	}
}

func add(name, value string) func(*testing.T, *http.Request) {
	return func(_ *testing.T, r *http.Request) { r.Header.Add(name, value) }
}

// TestForgeries takes one valid request and changes one thing in each row.
func TestForgeries(t *testing.T) {
	const list = "content-length;content-type;host;x-amz-date"
	for name, row := range map[string]struct {
		change func(*testing.T, *http.Request)
		reason error
		code   string
		status int
	}{
		"no Authorization":            {set("Authorization"), sigv4.ErrUnsigned, "MissingAuthenticationToken", 403},
		"empty Authorization":         {set("Authorization", ""), sigv4.ErrMalformed, incomplete, 400},
		"blank Authorization":         {set("Authorization", " \t "), sigv4.ErrMalformed, incomplete, 400},
		"Authorization twice":         {add("Authorization", "AWS4-HMAC-SHA256 x"), sigv4.ErrDuplicate, incomplete, 400},
		"Authorization too long":      {inHeader("Signature=", strings.Repeat(" ", 8<<10)+"Signature="), sigv4.ErrMalformed, incomplete, 400},
		"signed in the query too":     {func(_ *testing.T, r *http.Request) { r.URL.RawQuery = "X-Amz-Signature=0" }, sigv4.ErrTwoSignatures, incomplete, 400},
		"token in the query":          {func(_ *testing.T, r *http.Request) { r.URL.RawQuery = "X%2DAmz-Security-Token=t" }, sigv4.ErrTwoSignatures, incomplete, 400},
		"query malformed":             {func(_ *testing.T, r *http.Request) { r.URL.RawQuery = "a=%zz" }, sigv4.ErrQuery, "MalformedQueryString", 404},
		"query cut short":             {func(_ *testing.T, r *http.Request) { r.URL.RawQuery = "a%2" }, sigv4.ErrQuery, "MalformedQueryString", 404},
		"query too long":              {func(_ *testing.T, r *http.Request) { r.URL.RawQuery = strings.Repeat("&", 5000) }, sigv4.ErrQuery, "MalformedQueryString", 404},
		"other algorithm":             {inHeader("HMAC-SHA256", "ECDSA-P256-SHA256"), sigv4.ErrAlgorithm, incomplete, 400},
		"algorithm in lower case":     {inHeader("AWS4-HMAC", "aws4-hmac"), sigv4.ErrAlgorithm, incomplete, 400},
		"basic authentication":        {set("Authorization", "Basic YTpi"), sigv4.ErrAlgorithm, incomplete, 400},
		"signature version 2":         {set("Authorization", "AWS AKIDEXAMPLE:c2ln"), sigv4.ErrAlgorithm, incomplete, 400},
		"algorithm alone":             {set("Authorization", "AWS4-HMAC-SHA256"), sigv4.ErrIncomplete, incomplete, 400},
		"no Credential":               {inHeader("Credential=", "Signature="), sigv4.ErrDuplicate, incomplete, 400},
		"Credential left out":         {inHeader("Credential=AKIDEXAMPLE/20260102/eu-central-1/redshift/aws4_request, ", ""), sigv4.ErrIncomplete, incomplete, 400},
		"SignedHeaders left out":      {inHeader("SignedHeaders="+list+", ", ""), sigv4.ErrIncomplete, incomplete, 400},
		"SignedHeaders empty":         {inHeader(list, ""), sigv4.ErrIncomplete, incomplete, 400},
		"Signature empty":             {cutSignature, sigv4.ErrIncomplete, incomplete, 400},
		"part unknown":                {inHeader("Signature=", "Extra=1, Signature="), sigv4.ErrMalformed, incomplete, 400},
		"part in lower case":          {inHeader("Signature=", "signature="), sigv4.ErrMalformed, incomplete, 400},
		"part without =":              {inHeader("Signature=", "Signature, "), sigv4.ErrMalformed, incomplete, 400},
		"part twice":                  {inHeader("Signature=", "SignedHeaders=host, Signature="), sigv4.ErrDuplicate, incomplete, 400},
		"part twice, first empty":     {inHeader("Signature=", "Signature=, Signature="), sigv4.ErrDuplicate, incomplete, 400},
		"comma at the end":            {func(_ *testing.T, r *http.Request) { r.Header["Authorization"][0] += "," }, sigv4.ErrMalformed, incomplete, 400},
		"credential of four":          {inHeader("/aws4_request", ""), sigv4.ErrCredential, incomplete, 400},
		"credential of six":           {inHeader("/aws4_request", "/aws4_request/x"), sigv4.ErrCredential, incomplete, 400},
		"credential without key id":   {inHeader("=AKIDEXAMPLE/", "=/"), sigv4.ErrCredential, incomplete, 400},
		"credential of one":           {inHeader("/20260102/eu-central-1/redshift/aws4_request", ""), sigv4.ErrCredential, incomplete, 400},
		"scope date":                  {inHeader("/20260102/", "/20260103/"), sigv4.ErrScopeDate, mismatch, 403},
		"scope date, longer":          {inHeader("/20260102/", "/20260102T/"), sigv4.ErrScopeDate, mismatch, 403},
		"scope region":                {inHeader("/eu-central-1/", "/us-west-2/"), sigv4.ErrScopeRegion, mismatch, 403},
		"scope region, global":        {inHeader("/eu-central-1/", "/us-east-1/"), sigv4.ErrScopeRegion, mismatch, 403},
		"scope region in capitals":    {inHeader("/eu-central-1/", "/EU-CENTRAL-1/"), sigv4.ErrScopeRegion, mismatch, 403},
		"scope region empty":          {inHeader("/eu-central-1/", "//"), sigv4.ErrScopeRegion, mismatch, 403},
		"scope service not ours":      {inHeader("/redshift/", "/s3/"), sigv4.ErrScopeService, mismatch, 403},
		"scope service of ours":       {inHeader("/redshift/", "/sts/"), sigv4.ErrSignature, mismatch, 403},
		"scope service empty":         {inHeader("/redshift/", "//"), sigv4.ErrScopeService, mismatch, 403},
		"scope terminator":            {inHeader("/aws4_request", "/aws4_reques"), sigv4.ErrScopeTerminator, mismatch, 403},
		"no date":                     {set("X-Amz-Date"), sigv4.ErrDate, incomplete, 400},
		"date altered":                {set("X-Amz-Date", "20260102T030406Z"), sigv4.ErrSignature, mismatch, 403},
		"date twice":                  {add("X-Amz-Date", "20260102T030405Z"), sigv4.ErrDuplicate, incomplete, 400},
		"date with a fraction":        {set("X-Amz-Date", "20260102T030405.5Z"), sigv4.ErrDate, incomplete, 400},
		"date in extended format":     {set("X-Amz-Date", "2026-01-02T03:04:05Z"), sigv4.ErrDate, incomplete, 400},
		"date that is none":           {set("X-Amz-Date", "20261302T030405Z"), sigv4.ErrDate, incomplete, 400},
		"headers unsorted":            {inHeader(list, "host;content-length;content-type;x-amz-date"), sigv4.ErrSignedHeaders, incomplete, 400},
		"headers in capitals":         {inHeader(";host;", ";Host;"), sigv4.ErrSignedHeaders, incomplete, 400},
		"header listed twice":         {inHeader(";host;", ";host;host;"), sigv4.ErrSignedHeaders, incomplete, 400},
		"list too long":               {inHeader(";x-amz-date", ";x-amz-date;x"+strings.Repeat("y", 2<<10)), sigv4.ErrSignedHeaders, incomplete, 400},
		"header name empty":           {inHeader(";host;", ";;host;"), sigv4.ErrSignedHeaders, incomplete, 400},
		"header name with a line end": {inHeader(";host;", ";h\nost;"), sigv4.ErrSignedHeaders, incomplete, 400},
		"host not listed":             {inHeader(";host;", ";"), sigv4.ErrHostUnsigned, mismatch, 403},
		"date not listed":             {inHeader(";x-amz-date", ""), sigv4.ErrHeaderUnsigned, mismatch, 403},
		"content type not listed":     {inHeader(";content-type;", ";"), sigv4.ErrSignature, mismatch, 403},
		"listed header absent":        {inHeader(";x-amz-date", ";x-amz-date;x-more"), sigv4.ErrHeaderAbsent, mismatch, 403},
		"x-amz- header added":         {set("X-Amz-Target", "x"), sigv4.ErrHeaderUnsigned, mismatch, 403},
		"host altered":                {func(_ *testing.T, r *http.Request) { r.Host = "db.example.com" }, sigv4.ErrSignature, mismatch, 403},
		"signed header altered":       {set("Content-Type", "text/plain"), sigv4.ErrSignature, mismatch, 403},
		"signed header twice":         {add("Content-Type", "application/x-www-form-urlencoded"), sigv4.ErrSignature, mismatch, 403},
		"method altered":              {func(_ *testing.T, r *http.Request) { r.Method = "GET" }, sigv4.ErrSignature, mismatch, 403},
		"path altered":                {func(_ *testing.T, r *http.Request) { r.RequestURI = "/x" }, sigv4.ErrSignature, mismatch, 403},
		"query added":                 {func(_ *testing.T, r *http.Request) { r.URL.RawQuery = "AutoCreate=true" }, sigv4.ErrSignature, mismatch, 403},
		"unsigned payload":            {set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"), sigv4.ErrHeaderUnsigned, mismatch, 403},
		"key id unknown":              {inHeader("AKIDEXAMPLE", "AKIDEXAMPLF"), sigv4.ErrUnknownKey, "InvalidClientTokenId", 403},
		"token on a long-term key":    {set("X-Amz-Security-Token", "made-up"), sigv4.ErrInvalidToken, "InvalidClientTokenId", 403},
		"token expired":               {set("X-Amz-Security-Token", "old"), sigv4.ErrTokenExpired, "ExpiredToken", 403},
		"token twice":                 {set("X-Amz-Security-Token", "a", "b"), sigv4.ErrDuplicate, incomplete, 400},
		"signature altered":           {flipSignature, sigv4.ErrSignature, mismatch, 403},
		"signature in capitals":       {upperSignature, sigv4.ErrSignature, mismatch, 403},
		"signature too short":         {func(_ *testing.T, r *http.Request) { a := r.Header["Authorization"]; a[0] = a[0][:len(a[0])-1] }, sigv4.ErrSignature, mismatch, 403},
		"signature too long":          {func(_ *testing.T, r *http.Request) { r.Header["Authorization"][0] += "0" }, sigv4.ErrSignature, mismatch, 403},
	} {
		t.Run(name, func(t *testing.T) {
			r, body := post(t, signedNow)
			row.change(t, r)
			s, err := verifierAt(signedAt).Verify(r, body, longTerm)
			wantRefused(t, err, row.reason, row.code, row.status)
			if s != (sigv4.Signature{}) {
				t.Errorf("Verify = %+v beside an error", s)
			}
		})
	}
}

// longTerm is the lookup of one long-term access key.
func longTerm(id, token string) (string, error) {
	switch {
	case id != keyID:
		return "", sigv4.ErrUnknownKey
	case token == "old":
		return "", sigv4.ErrTokenExpired
	case token != "":
		return "", sigv4.ErrInvalidToken
	}
	return secret, nil
}

func onSignature(change func(string) string) func(*testing.T, *http.Request) {
	return func(_ *testing.T, r *http.Request) {
		head, signature, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
		r.Header.Set("Authorization", head+"Signature="+change(signature))
	}
}

var (
	cutSignature   = onSignature(func(string) string { return "" })
	upperSignature = onSignature(strings.ToUpper)
	flipSignature  = onSignature(func(s string) string { return s[:63] + string(s[63]^1) })
)

// TestPresignedForgeries takes one valid presigned URL and changes one thing in each row.
func TestPresignedForgeries(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*testing.T, *http.Request)
		reason error
		code   string
		status int
	}{
		"header signature too":     {set("Authorization", "AWS4-HMAC-SHA256 x"), sigv4.ErrTwoSignatures, incomplete, 400},
		"no algorithm":             {inQuery("X-Amz-Algorithm=", "x="), sigv4.ErrIncomplete, incomplete, 400},
		"no credential":            {inQuery("X-Amz-Credential=", "x="), sigv4.ErrIncomplete, incomplete, 400},
		"no date":                  {inQuery("X-Amz-Date=", "x="), sigv4.ErrIncomplete, incomplete, 400},
		"no signed headers":        {inQuery("X-Amz-SignedHeaders=", "x="), sigv4.ErrIncomplete, incomplete, 400},
		"no signature":             {inQuery("X-Amz-Signature=", "x="), sigv4.ErrIncomplete, incomplete, 400},
		"signature in lower case":  {inQuery("X-Amz-Signature=", "x-amz-signature="), sigv4.ErrIncomplete, incomplete, 400},
		"other algorithm":          {inQuery("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"), sigv4.ErrAlgorithm, incomplete, 400},
		"algorithm twice":          {inQuery("X-Amz-Algorithm=", "X-Amz-Algorithm=x&X-Amz-Algorithm="), sigv4.ErrDuplicate, incomplete, 400},
		"credential twice":         {inQuery("X-Amz-Credential=", "X-Amz-Credential=x&X-Amz-Credential="), sigv4.ErrDuplicate, incomplete, 400},
		"date twice":               {inQuery("X-Amz-Date=", "X-Amz-Date=x&X-Amz-Date="), sigv4.ErrDuplicate, incomplete, 400},
		"expires twice":            {inQuery("X-Amz-Expires=", "X-Amz-Expires=1&X-Amz-Expires="), sigv4.ErrDuplicate, incomplete, 400},
		"headers twice":            {inQuery("X-Amz-SignedHeaders=", "X-Amz-SignedHeaders=x&X-Amz-SignedHeaders="), sigv4.ErrDuplicate, incomplete, 400},
		"signature twice":          {inQuery("X-Amz-Signature=", "X-Amz-Signature=&X-Amz-Signature="), sigv4.ErrDuplicate, incomplete, 400},
		"signature twice, hidden":  {inQuery("X-Amz-Signature=", "X%2dAmz-Signatur%65=0&X-Amz-Signature="), sigv4.ErrDuplicate, incomplete, 400},
		"token twice":              {inQuery("X-Amz-Date=", "X-Amz-Security-Token=a&X-Amz-Security-Token=b&X-Amz-Date="), sigv4.ErrDuplicate, incomplete, 400},
		"token in the header":      {set("X-Amz-Security-Token", "t"), sigv4.ErrDuplicate, incomplete, 400},
		"token added":              {inQuery("X-Amz-Date=", "X-Amz-Security-Token=t&X-Amz-Date="), sigv4.ErrInvalidToken, "InvalidClientTokenId", 403},
		"expires 0":                {inQuery("Expires=60", "Expires=0"), sigv4.ErrExpires, incomplete, 400},
		"expires negative":         {inQuery("Expires=60", "Expires=-60"), sigv4.ErrExpires, incomplete, 400},
		"expires with a sign":      {inQuery("Expires=60", "Expires=%2B60"), sigv4.ErrExpires, incomplete, 400},
		"expires more than a week": {inQuery("Expires=60", "Expires=604801"), sigv4.ErrExpires, incomplete, 400},
		"expires overflowing":      {inQuery("Expires=60", "Expires=18446744073709551676"), sigv4.ErrExpires, incomplete, 400},
		"expires empty":            {inQuery("Expires=60", "Expires="), sigv4.ErrExpires, incomplete, 400},
		"expires no number":        {inQuery("Expires=60", "Expires=1e3"), sigv4.ErrExpires, incomplete, 400},
		"expires later":            {inQuery("Expires=60", "Expires=61"), sigv4.ErrSignature, mismatch, 403},
		"expires left out":         {inQuery("&X-Amz-Expires=60", ""), sigv4.ErrSignature, mismatch, 403},
		"credential of four":       {inQuery("%2Faws4_request", ""), sigv4.ErrCredential, incomplete, 400},
		"scope date":               {inQuery("%2F20260102%2F", "%2F20260101%2F"), sigv4.ErrScopeDate, mismatch, 403},
		"scope region":             {inQuery("eu-central-1", "eu-west-1"), sigv4.ErrScopeRegion, mismatch, 403},
		"scope service":            {inQuery("%2Fredshift%2F", "%2Fs3%2F"), sigv4.ErrScopeService, mismatch, 403},
		"scope terminator":         {inQuery("aws4_request", "aws4"), sigv4.ErrScopeTerminator, mismatch, 403},
		"date malformed":           {inQuery("20260102T030405Z", "20260102"), sigv4.ErrDate, incomplete, 400},
		"date altered":             {inQuery("20260102T030405Z", "20260102T030406Z"), sigv4.ErrSignature, mismatch, 403},
		"host not listed":          {inQuery("SignedHeaders=host", "SignedHeaders=accept"), sigv4.ErrHeaderAbsent, mismatch, 403},
		"only another listed":      {inQuery("SignedHeaders=host", "SignedHeaders=user-agent"), sigv4.ErrHostUnsigned, mismatch, 403},
		"x-amz- header added":      {set("X-Amz-Date", "20260102T030405Z"), sigv4.ErrHeaderUnsigned, mismatch, 403},
		"unsigned payload":         {inQuery("X-Amz-Date=", "X-Amz-Content-Sha256=UNSIGNED-PAYLOAD&X-Amz-Date="), sigv4.ErrPayloadUnsigned, mismatch, 403},
		"other payload":            {inQuery("X-Amz-Date=", "X-Amz-Content-Sha256=00&X-Amz-Date="), sigv4.ErrPayloadHash, mismatch, 403},
		"parameter altered":        {inQuery("DbUser=alice", "DbUser=alicf"), sigv4.ErrSignature, mismatch, 403},
		"parameter added":          {inQuery("DbUser=alice", "DbUser=alice&AutoCreate=true"), sigv4.ErrSignature, mismatch, 403},
		"parameter twice":          {inQuery("DbUser=alice", "DbUser=alice&DbUser=alice"), sigv4.ErrSignature, mismatch, 403},
		"key id unknown":           {inQuery("AKIDEXAMPLE", "AKID"), sigv4.ErrUnknownKey, "InvalidClientTokenId", 403},
		"method altered":           {func(_ *testing.T, r *http.Request) { r.Method = "POST" }, sigv4.ErrSignature, mismatch, 403},
		"host altered":             {func(_ *testing.T, r *http.Request) { r.Host = "evil.example.com" }, sigv4.ErrSignature, mismatch, 403},
	} {
		t.Run(name, func(t *testing.T) {
			r, body := get(t, signedNow)
			row.change(t, r)
			_, err := verifierAt(signedAt).Verify(r, body, longTerm)
			wantRefused(t, err, row.reason, row.code, row.status)
		})
	}
	r, _ := get(t, signedNow)
	_, err := verifierAt(signedAt).Verify(r, []byte("DbUser=root"), longTerm)
	wantRefused(t, err, sigv4.ErrSignature, mismatch, 403) // a body was added
}

// TestUnalteredIsAccepted: the requests that the tables change are valid, and harmless
// changes are accepted.
func TestUnalteredIsAccepted(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *http.Request){
		"nothing":                func(*testing.T, *http.Request) {},
		"unsigned header added":  set("X-Forwarded-For", "10.0.0.1"),
		"trace id of a balancer": set("X-Amzn-Trace-Id", "Root=1"),
		"no blanks between parts": func(_ *testing.T, r *http.Request) {
			a := r.Header["Authorization"]
			a[0] = strings.ReplaceAll(a[0], ", ", ",")
		},
		"many blanks": func(_ *testing.T, r *http.Request) {
			a := r.Header["Authorization"]
			a[0] = strings.ReplaceAll(a[0], ", ", " ,\t ")
		},
		"empty session token":      set("X-Amz-Security-Token", ""),
		"length known apart":       set("Content-Length"),
		"dot segments in the path": func(_ *testing.T, r *http.Request) { r.RequestURI = "/x/.././" },
	} {
		r, body := post(t, signedNow)
		change(t, r)
		if _, err := verifierAt(signedAt).Verify(r, body, longTerm); err != nil {
			t.Errorf("%s: Verify = %v", name, err)
		}
	}
	r, body := get(t, signedNow)
	if s, err := verifierAt(signedAt).Verify(r, body, longTerm); err != nil || !s.Presigned {
		t.Errorf("presigned: Verify = %+v, %v", s, err)
	}
	parts := strings.SplitN(strings.TrimPrefix(authorization(t), "AWS4-HMAC-SHA256 "), ", ", 3)
	r, body = post(t, signedNow)
	r.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 %s, %s, %s", parts[2], parts[0], parts[1]))
	if _, err := verifierAt(signedAt).Verify(r, body, longTerm); err != nil {
		t.Errorf("parts in another order: Verify = %v", err)
	}
}

func authorization(t *testing.T) string {
	r, _ := post(t, signedNow)
	return r.Header.Get("Authorization")
}

// TestSignedButRefused: requests that a client signed correctly, but with content that is
// not allowed.
func TestSignedButRefused(t *testing.T) {
	for name, row := range map[string]struct {
		payload string
		header  string
		reason  error
	}{
		"unsigned payload":   {"UNSIGNED-PAYLOAD", "UNSIGNED-PAYLOAD", sigv4.ErrPayloadUnsigned},
		"streaming payload":  {"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", sigv4.ErrPayloadUnsigned},
		"unsigned trailer":   {"STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", sigv4.ErrPayloadUnsigned},
		"hash of another":    {hashOf("x"), hashOf("x"), sigv4.ErrPayloadHash},
		"hash not stated":    {hashOf("x"), "", sigv4.ErrSignature},
		"hash in capitals":   {strings.ToUpper(hashOf(form)), strings.ToUpper(hashOf(form)), sigv4.ErrPayloadHash},
		"unsigned, unstated": {"UNSIGNED-PAYLOAD", "", sigv4.ErrSignature},
	} {
		r := newRequest(t, "POST", target, form)
		if row.header != "" {
			r.Header.Set("X-Amz-Content-Sha256", row.header)
		}
		s := signedNow
		s.payload = row.payload
		got, body := signHeader(t, r, form, s)
		t.Run(name, func(t *testing.T) {
			_, err := verifierAt(signedAt).Verify(got, body, longTerm)
			wantRefused(t, err, row.reason, mismatch, 403)
		})
	}
	s := signedNow
	s.secret = "another"
	r, body := post(t, s)
	_, err := verifierAt(signedAt).Verify(r, body, longTerm)
	wantRefused(t, err, sigv4.ErrSignature, mismatch, 403)
}

// TestScope: a scope must name a service and the region of the Verifier, or, for its global
// services, the global region.
func TestScope(t *testing.T) {
	for _, row := range []struct {
		service, region string
		reason          error
	}{
		{"redshift", "eu-central-1", nil},
		{"sts", "eu-central-1", nil},
		{"sts", "us-east-1", nil},
		{"iam", "us-east-1", nil},
		{"redshift", "us-east-1", sigv4.ErrScopeRegion},
		{"iam", "us-west-2", sigv4.ErrScopeRegion},
		{"s3", "us-east-1", sigv4.ErrScopeService},
	} {
		s := signedNow
		s.service, s.region = row.service, row.region
		r, body := post(t, s)
		got, err := verifierAt(signedAt).Verify(r, body, longTerm)
		if !errors.Is(err, row.reason) {
			t.Errorf("%s in %s: Verify = %v, want %v", row.service, row.region, err, row.reason)
		}
		if err == nil && (got.Service != row.service || got.Region != row.region) {
			t.Errorf("%s in %s: Verify = %+v", row.service, row.region, got)
		}
	}
}

// TestWindow: a signature is valid 15 minutes, or MaxSkew, before and after its time. A presigned
// URL is valid as long as it says.
func TestWindow(t *testing.T) {
	for _, row := range []struct {
		sign    func(*testing.T, signing) (*http.Request, []byte)
		after   time.Duration // the verifier's clock, after signing
		reason  error
		message string
	}{
		{post, 0, nil, ""},
		{post, 15 * time.Minute, nil, ""},
		{post, -15 * time.Minute, nil, ""},
		{post, 15*time.Minute + time.Second, sigv4.ErrExpired,
			"Signature expired: 20260102T030405Z is now earlier than 20260102T030406Z (20260102T031906Z - 15 min.)"},
		{post, time.Hour, sigv4.ErrExpired,
			"Signature expired: 20260102T030405Z is now earlier than 20260102T034905Z (20260102T040405Z - 15 min.)"},
		{post, -16 * time.Minute, sigv4.ErrNotYetCurrent,
			"Signature not yet current: 20260102T030405Z is still later than 20260102T030305Z (20260102T024805Z + 15 min.)"},
		{get, 60 * time.Second, nil, ""},
		{get, 61 * time.Second, sigv4.ErrExpired,
			"Signature expired: 20260102T030505Z (20260102T030405Z + 60 sec.) is now earlier than 20260102T030506Z"},
		{get, -16 * time.Minute, sigv4.ErrNotYetCurrent,
			"Signature not yet current: 20260102T030405Z is still later than 20260102T030305Z (20260102T024805Z + 15 min.)"},
		{week, 7 * 24 * time.Hour, nil, ""},
		{week, 7*24*time.Hour + time.Second, sigv4.ErrExpired,
			"Signature expired: 20260109T030405Z (20260102T030405Z + 604800 sec.) is now earlier than 20260109T030406Z"},
		{noExpires, 15 * time.Minute, nil, ""},
		{noExpires, 16 * time.Minute, sigv4.ErrExpired,
			"Signature expired: 20260102T030405Z is now earlier than 20260102T030505Z (20260102T032005Z - 15 min.)"},
	} {
		r, body := row.sign(t, signedNow)
		_, err := verifierAt(signedAt.Add(row.after)).Verify(r, body, longTerm)
		var refusal *sigv4.Error
		switch {
		case !errors.Is(err, row.reason):
			t.Errorf("after %v: Verify = %v, want %v", row.after, err, row.reason)
		case errors.As(err, &refusal) && (refusal.Message != row.message || refusal.Code != mismatch || refusal.Status != 403):
			t.Errorf("after %v: Verify = %s %d %q, want %q", row.after, refusal.Code, refusal.Status, refusal.Message, row.message)
		}
	}
	v := verifierAt(signedAt.Add(6 * time.Minute))
	v.MaxSkew = 5 * time.Minute
	r, body := post(t, signedNow)
	if _, err := v.Verify(r, body, longTerm); !errors.Is(err, sigv4.ErrExpired) {
		t.Errorf("6 minutes late with MaxSkew 5: Verify = %v", err)
	}
}

func week(t *testing.T, s signing) (*http.Request, []byte) {
	return presign(t, newRequest(t, "GET", target+"?X-Amz-Expires=604800", ""), "", s)
}

func noExpires(t *testing.T, s signing) (*http.Request, []byte) {
	return presign(t, newRequest(t, "GET", target+"?"+form, ""), "", s)
}
