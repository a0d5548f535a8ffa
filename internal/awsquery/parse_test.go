package awsquery_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/awsquery"
)

const formType = "application/x-www-form-urlencoded; charset=utf-8"

func post(form string) (*http.Request, []byte) {
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("Content-Type", formType)
	return r, []byte(form)
}

// params parses a form that must be valid.
func params(t testing.TB, form string) *awsquery.Params {
	t.Helper()
	r, body := post(form)
	request, err := awsquery.Parse(r, body)
	if err != nil {
		t.Fatalf("Parse(%q) = %v", form, err)
	}
	return request.Params
}

func wantError(t *testing.T, what string, err error, code string, status int, words ...string) {
	t.Helper()
	refusal, ok := errors.AsType[*awsquery.Error](err)
	if !ok {
		t.Errorf("%s = %v, want *Error %s", what, err, code)
		return
	}
	if refusal.Code != code || refusal.Status != status {
		t.Errorf("%s = %s (%d), want %s (%d)", what, refusal.Code, refusal.Status, code, status)
	}
	for _, word := range words {
		if !strings.Contains(refusal.Message, word) {
			t.Errorf("%s = %q, which does not say %q", what, refusal.Message, word)
		}
	}
}

// TestParse has requests as clients send them: the first is the AWS CLI's.
func TestParse(t *testing.T) {
	for name, row := range map[string]struct {
		method, target, contentType, body string
		want                              string
	}{
		"AWS CLI": {"POST", "/", formType,
			"Action=GetClusterCredentials&Version=2012-12-01&DbUser=a%2Bb%40c+d&AutoCreate=true&DbGroups.DbGroup.1=g1",
			"GetClusterCredentials 2012-12-01 [AutoCreate=true DbGroups.DbGroup.1=g1 DbUser=a+b@c d]"},
		"AWS SDK for JavaScript": {"POST", "/", "application/x-www-form-urlencoded",
			"Action=A&Version=1&DbUser=a%2Bb%40c%20d", "A 1 [DbUser=a+b@c d]"},
		"any order":            {"POST", "/", formType, "Z=1&Version=1&B=2&Action=A", "A 1 [B=2 Z=1]"},
		"GET":                  {"GET", "/?Action=A&Version=1&DbUser=alice", "", "", "A 1 [DbUser=alice]"},
		"GET, no method named": {"", "/?Action=A", "", "", "A  []"},
		"presigned": {"GET", "/?Action=A&Version=1&B=2&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=c&X-Amz-Date=d" +
			"&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Security-Token=t&X-Amz-Signature=s", "", "", "A 1 [B=2]"},
		"presigned POST":            {"POST", "/?Action=A&X-Amz-Signature=s", "", "", "A  []"},
		"POST with a query":         {"POST", "/?Action=A&Version=1", formType, "B=2", "A 1 [B=2]"},
		"POST without a type":       {"POST", "/", "", "Action=A", "A  []"},
		"type in capitals":          {"POST", "/", "Application/X-WWW-Form-URLEncoded;Charset=\"UTF-8\"", "Action=A", "A  []"},
		"unknown type attribute":    {"POST", "/", "application/x-www-form-urlencoded; x=y", "Action=A", "A  []"},
		"nothing":                   {"POST", "/", formType, "", "  []"},
		"empty pairs":               {"POST", "/", formType, "&&Action=A&&B=2&", "A  [B=2]"},
		"no equals sign":            {"POST", "/", formType, "Action=A&DbGroups", "A  [DbGroups=]"},
		"equals sign in the value":  {"POST", "/", formType, "Action=A&B==c=", "A  [B==c=]"},
		"semicolon is no separator": {"POST", "/", formType, "Action=A&B=1;C=2", "A  [B=1;C=2]"},
		"encoded names":             {"POST", "/", formType, "%41ction=A&Db%47roups.member.1=x", "A  [DbGroups.member.1=x]"},
		"raw UTF-8":                 {"POST", "/", formType, "Action=A&B=é", "A  [B=é]"},
		"encoded UTF-8":             {"POST", "/", formType, "Action=A&B=%c3%A9%F0%9D%84%9E", "A  [B=é𝄞]"},
		"control characters":        {"POST", "/", formType, "Action=A&B=%00%0A%0d", "A  [B=\x00\n\r]"},
		"X-Amz- in a body":          {"POST", "/", formType, "Action=A&X-Amz-Date=1", "A  [X-Amz-Date=1]"},
		"names differ in case":      {"POST", "/", formType, "Action=A&action=B", "A  [action=B]"},
	} {
		r := httptest.NewRequest("POST", row.target, nil)
		r.Method = row.method
		if row.contentType != "" {
			r.Header.Set("Content-Type", row.contentType)
		}
		request, err := awsquery.Parse(r, []byte(row.body))
		if err != nil {
			t.Errorf("%s: Parse = %v", name, err)
			continue
		}
		var rest []string
		for name, value := range request.Params.All() {
			rest = append(rest, name+"="+value)
		}
		if got := fmt.Sprint(request.Action, " ", request.Version, " ", rest); got != row.want {
			t.Errorf("%s: Parse = %q, want %q", name, got, row.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const (
		malformedQuery = "MalformedQueryString"
		invalidQuery   = "InvalidQueryParameter"
		malformedHTTP  = "MalformedHttpRequestException"
	)
	header := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[name] = values }
	}
	method := func(name string) func(*http.Request) { return func(r *http.Request) { r.Method = name } }
	query := func(raw string) func(*http.Request) { return func(r *http.Request) { r.URL.RawQuery = raw } }
	for name, row := range map[string]struct {
		change func(*http.Request)
		form   string
		code   string
		status int
		words  string
	}{
		"bad percent code":          {nil, "DbUser=%zz", malformedQuery, 404, "DbUser"},
		"percent code cut short":    {nil, "DbUser=%4", malformedQuery, 404, "DbUser"},
		"lone percent sign":         {nil, "DbUser=100%", malformedQuery, 404, "DbUser"},
		"bad percent code in name":  {nil, "Db%User=a", malformedQuery, 404, "name of a parameter"},
		"not UTF-8":                 {nil, "DbUser=%FF", malformedQuery, 404, "DbUser"},
		"raw bytes, not UTF-8":      {nil, "DbUser=\xc3", malformedQuery, 404, "DbUser"},
		"surrogate":                 {nil, "DbUser=%ED%A0%80", malformedQuery, 404, "DbUser"},
		"name not UTF-8":            {nil, "%FF=1", malformedQuery, 404, "name"},
		"no name":                   {nil, "=alice", malformedQuery, 404, "no name"},
		"twice":                     {nil, "DbUser=a&B=1&DbUser=a", invalidQuery, 400, "DbUser"},
		"twice, one encoded":        {nil, "DbUser=a&Db%55ser=b", invalidQuery, 400, "DbUser"},
		"Action twice":              {nil, "Action=A&Action=B", invalidQuery, 400, "Action"},
		"in query and body":         {query("DbUser=a"), "DbUser=b", invalidQuery, 400, "DbUser"},
		"name too long":             {nil, strings.Repeat("n", awsquery.MaxName+1) + "=1", invalidQuery, 400, "256 bytes"},
		"value too long":            {nil, "DbUser=" + strings.Repeat("v", awsquery.MaxValue+1), "InvalidParameterValue", 400, "DbUser"},
		"too many parameters":       {nil, strings.Repeat("a=1&", awsquery.MaxParameters), invalidQuery, 400, "too many"},
		"body too large":            {nil, "DbUser=" + strings.Repeat("v", awsquery.MaxBytes), "RequestEntityTooLarge", 413, ""},
		"query too large":           {query(strings.Repeat("v", awsquery.MaxBytes+1)), "", "RequestEntityTooLarge", 413, ""},
		"JSON":                      {header("Content-Type", "application/json"), "{}", malformedHTTP, 400, "x-www-form-urlencoded"},
		"multipart":                 {header("Content-Type", "multipart/form-data; boundary=x"), "--x", malformedHTTP, 400, "x-www-form-urlencoded"},
		"empty type":                {header("Content-Type", ""), "", malformedHTTP, 400, "x-www-form-urlencoded"},
		"two types":                 {header("Content-Type", formType, formType), "", malformedHTTP, 400, "more than one"},
		"another charset":           {header("Content-Type", "application/x-www-form-urlencoded; charset=utf-16"), "", malformedHTTP, 400, "utf-8"},
		"compressed":                {header("Content-Encoding", "gzip"), "", malformedHTTP, 400, "Content-Encoding"},
		"GET with a body":           {method("GET"), "Action=A", malformedHTTP, 400, "no body"},
		"PUT":                       {method("PUT"), "Action=A", malformedHTTP, 400, "GET or POST"},
		"HEAD":                      {method("HEAD"), "", malformedHTTP, 400, "GET or POST"},
		"bad percent code in query": {query("DbUser=%zz"), "", malformedQuery, 404, "DbUser"},
	} {
		t.Run(name, func(t *testing.T) {
			r, body := post(row.form)
			if row.change != nil {
				row.change(r)
			}
			_, err := awsquery.Parse(r, body)
			wantError(t, "Parse", err, row.code, row.status, row.words)
			if err != nil && len(err.Error()) > 600 {
				t.Errorf("message of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestScalars(t *testing.T) {
	p := params(t, "S=text&Empty=&N=-42&Max=2147483647&Big=2147483648&Plus=%2B5&Hex=0x10&Frac=1.0&Space=+5&T=true&F=false&Word=True&L.member.1=x")
	for name, want := range map[string]struct {
		value   string
		present bool
	}{"S": {"text", true}, "Empty": {"", true}, "Absent": {"", false}, "s": {"", false}} {
		if value, present, err := p.String(name); value != want.value || present != want.present || err != nil {
			t.Errorf("String(%s) = %q, %t, %v", name, value, present, err)
		}
	}
	for name, want := range map[string]int{"N": -42, "Max": 1<<31 - 1} {
		if value, present, err := p.Int(name); value != want || !present || err != nil {
			t.Errorf("Int(%s) = %d, %t, %v", name, value, present, err)
		}
	}
	if _, present, err := p.Int("Absent"); present || err != nil {
		t.Errorf("Int(Absent) = %t, %v", present, err)
	}
	for _, name := range []string{"S", "Empty", "Big", "Plus", "Hex", "Frac", "Space"} {
		_, present, err := p.Int(name)
		wantError(t, "Int("+name+")", err, "InvalidParameterValue", 400, name, "must be an integer")
		if !present {
			t.Errorf("Int(%s) is absent", name)
		}
	}
	for name, want := range map[string]bool{"T": true, "F": false} {
		if value, present, err := p.Bool(name); value != want || !present || err != nil {
			t.Errorf("Bool(%s) = %t, %t, %v", name, value, present, err)
		}
	}
	if _, present, err := p.Bool("Absent"); present || err != nil {
		t.Errorf("Bool(Absent) = %t, %v", present, err)
	}
	for _, name := range []string{"S", "Empty", "N", "Word"} {
		_, _, err := p.Bool(name)
		wantError(t, "Bool("+name+")", err, "InvalidParameterValue", 400, name, "must be true or false")
	}
	_, _, err := p.String("L")
	wantError(t, "String(L)", err, "InvalidParameterValue", 400, "L", "single value")
	_, _, err = p.Int("L")
	wantError(t, "Int(L)", err, "InvalidParameterValue", 400, "L", "single value")
}

func TestList(t *testing.T) {
	long := make([]string, 12)
	for i := range long {
		long[i] = fmt.Sprintf("DbGroups.DbGroup.%d=%d", i+1, i+1)
	}
	for form, want := range map[string]struct {
		values  []string
		present bool
	}{
		"":          {nil, false},
		"DbUser=a":  {nil, false},
		"DbGroups=": {nil, true},
		"DbGroups":  {nil, true},
		"DbGroups.DbGroup.1=a&DbGroups.DbGroup.2=b": {[]string{"a", "b"}, true},
		"DbGroups.DbGroup.2=b&DbGroups.DbGroup.1=a": {[]string{"a", "b"}, true},
		"DbGroups.member.1=a&DbGroups.member.2=b":   {[]string{"a", "b"}, true},
		"DbGroups.DbGroup.1=":                       {[]string{""}, true},
		"DbGroups.DbGroup.1=a&DbGroupsX=1&DbG=2":    {[]string{"a"}, true},
		strings.Join(long, "&"):                     {strings.Fields("1 2 3 4 5 6 7 8 9 10 11 12"), true},
	} {
		values, present, err := params(t, form).List("DbGroups", "DbGroup")
		if fmt.Sprint(values) != fmt.Sprint(want.values) || present != want.present || err != nil {
			t.Errorf("List of %q = %q, %t, %v", form, values, present, err)
		}
	}
	for form, words := range map[string]string{
		"DbGroups=a":                                 "must be a list",
		"DbGroups=&DbGroups.DbGroup.1=a":             "must not be empty and have members",
		"DbGroups=x&DbGroups.DbGroup.1=a":            "must be a list",
		"DbGroups.1=a":                               "form DbGroups.DbGroup.N",
		"DbGroups.Group.1=a":                         "form DbGroups.DbGroup.N",
		"DbGroups.dbgroup.1=a":                       "form DbGroups.DbGroup.N",
		"DbGroups.DbGroup=a":                         "form DbGroups.DbGroup.N",
		"DbGroups.DbGroup.1=a&DbGroups.member.2=b":   "form DbGroups.DbGroup.N",
		"DbGroups.DbGroup.1=a&DbGroups.member.1=b":   "form DbGroups.DbGroup.N",
		"DbGroups.DbGroup.=a":                        "numbered 1, 2, 3",
		"DbGroups.DbGroup.0=a":                       "numbered 1, 2, 3",
		"DbGroups.DbGroup.-1=a":                      "numbered 1, 2, 3",
		"DbGroups.DbGroup.01=a":                      "numbered 1, 2, 3",
		"DbGroups.DbGroup.%2B1=a":                    "numbered 1, 2, 3",
		"DbGroups.DbGroup.1x=a":                      "numbered 1, 2, 3",
		"DbGroups.DbGroup.1-=a&DbGroups.DbGroup.1=b": "numbered 1, 2, 3",
		"DbGroups.DbGroup.%D9%A1=a":                  "numbered 1, 2, 3",
		"DbGroups.DbGroup.2=a":                       "DbGroups.DbGroup.1 is missing",
		"DbGroups.DbGroup.1=a&DbGroups.DbGroup.3=b":  "DbGroups.DbGroup.2 is missing",
		"DbGroups.member.2=a":                        "DbGroups.member.1 is missing",
		"DbGroups.DbGroup.1001=a":                    "more than 1000 members",
		"DbGroups.DbGroup.18446744073709551617=a":    "more than 1000 members",
		"DbGroups.DbGroup.1.Name=a":                  "DbGroups.DbGroup.1: it must be a single value",
		"DbGroups.DbGroup.1=a&DbGroups.DbGroup.1.x=": "DbGroups.DbGroup.1: it must be a single value",
	} {
		_, present, err := params(t, form).List("DbGroups", "DbGroup")
		wantError(t, "List of "+form, err, "InvalidParameterValue", 400, "DbGroups", words)
		if !present {
			t.Errorf("List of %s is absent", form)
		}
	}
}

func TestStructs(t *testing.T) {
	p := params(t, "Tags.member.2.Key=b&Tags.member.2.Value=2&Tags.member.1.Value=1&Tags.member.1.Key=a&Tags.member.10.Key=j"+
		"&Tags.member.3=&Tags.member.4.N=x&Tags.member.5.Values.member.2=v2&Tags.member.5.Values.member.1=v1"+
		"&Tags.member.6.Deep.member.1.Key=k&Tags.member.7.A=&Tags.member.8.A=&Tags.member.9.A=&TagsX=1")
	tags, err := p.Structs("Tags", "member")
	if err != nil || len(tags) != 10 {
		t.Fatalf("Structs = %d, %v, want 10", len(tags), err)
	}
	for i, want := range map[int]string{0: "a1", 1: "b2", 2: "", 9: "j"} {
		key, _, err1 := tags[i].String("Key")
		value, _, err2 := tags[i].String("Value")
		if key+value != want || err1 != nil || err2 != nil {
			t.Errorf("structure %d = %q %q, want %q", i+1, key, value, want)
		}
	}
	if values, present, err := tags[4].List("Values", "member"); fmt.Sprint(values) != "[v1 v2]" || !present || err != nil {
		t.Errorf("List in a structure = %q, %t, %v", values, present, err)
	}
	deep, err := tags[5].Structs("Deep", "member")
	if err != nil || len(deep) != 1 {
		t.Fatalf("Structs in a structure = %v, %v", deep, err)
	}
	if key, _, err := deep[0].String("Key"); key != "k" || err != nil {
		t.Errorf("String in a structure in a structure = %q, %v", key, err)
	}
	if got := deep[0].Name("Key"); got != "Tags.member.6.Deep.member.1.Key" {
		t.Errorf("Name = %q", got)
	}
	// Errors name the parameter in full.
	_, _, err = tags[3].Int("N")
	wantError(t, "Int", err, "InvalidParameterValue", 400, "Tags.member.4.N:")
	for _, form := range []string{"", "Tags="} {
		if tags, err := params(t, form).Structs("Tags", "Tag"); len(tags) != 0 || err != nil {
			t.Errorf("Structs of %q = %v, %v", form, tags, err)
		}
	}
	for form, words := range map[string]string{
		"Tags=x":                              "must be a list",
		"Tags.Tag.1=x":                        "Tags.Tag.1: it must be a structure",
		"Tags.Tag.1=&Tags.Tag.1.Key=a":        "Tags.Tag.1: it must be a structure",
		"Tags.Tag.2.Key=a":                    "Tags.Tag.1 is missing",
		"Tags.Tag.1.Key=a&Tags.member.2.Key=": "form Tags.Tag.N",
	} {
		_, err := params(t, form).Structs("Tags", "Tag")
		wantError(t, "Structs of "+form, err, "InvalidParameterValue", 400, words)
	}
}
