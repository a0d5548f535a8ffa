package awsquery_test

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/awsquery"
)

// FuzzParse parses any query string and body. Accepted parameters are those that net/url
// reads, have no duplicate name and stay the same when they are encoded and parsed again.
// Every refusal has a code. Reading lists and structures never panics.
func FuzzParse(f *testing.F) {
	f.Add("", "Action=GetClusterCredentials&Version=2012-12-01&DbUser=a%2Bb%40c+d&DbGroups.DbGroup.1=g1&DbGroups.DbGroup.2=g2")
	f.Add("Action=A&X-Amz-Signature=00", "DbGroups=")
	f.Add("", "Tags.member.1.Key=k&Tags.member.1.Value=v&Tags.member.2.Key=%C3%A9&Tags.member.10.Key=x")
	f.Fuzz(func(t *testing.T, query, form string) {
		r, body := post(form)
		r.URL.RawQuery = query
		request, err := awsquery.Parse(r, body)
		if err != nil {
			if refusal, ok := errors.AsType[*awsquery.Error](err); !ok || refusal.Code == "" || refusal.Status < 400 || refusal.Message == "" {
				t.Fatalf("Parse = %#v", err)
			}
			return
		}
		got := maps.Collect(request.Params.All())
		for name, value := range map[string]string{"Action": request.Action, "Version": request.Version} {
			if value != "" {
				got[name] = value
			}
		}
		// A semicolon is an error to net/url and a character to us.
		want := map[string]string{}
		for i, text := range []string{query, form} {
			values, err := url.ParseQuery(strings.ReplaceAll(text, ";", "%3B"))
			if err != nil {
				t.Fatalf("net/url refuses %q: %v", text, err)
			}
			for name, all := range values {
				if i == 0 && strings.HasPrefix(name, "X-Amz-") || (name == "Action" || name == "Version") && all[0] == "" {
					continue
				}
				if len(all) != 1 {
					t.Fatalf("Parse accepts %q %d times", name, len(all))
				}
				want[name] = all[0]
			}
		}
		if !maps.Equal(got, want) {
			t.Fatalf("Parse = %q, want %q", got, want)
		}
		encoded := url.Values{}
		for name, value := range got {
			encoded.Set(name, value)
		}
		r, body = post(encoded.Encode())
		again, err := awsquery.Parse(r, body)
		if err != nil || again.Action != request.Action || !maps.Equal(maps.Collect(again.Params.All()), maps.Collect(request.Params.All())) {
			t.Fatalf("Parse of it encoded again = %v, %v", again, err)
		}
		for name := range request.Params.All() {
			root, rest, _ := strings.Cut(name, ".")
			member, _, _ := strings.Cut(rest, ".")
			if values, _, err := request.Params.List(root, member); err == nil && len(values) > 0 {
				last := root + "." + member + "." + strings.TrimPrefix(name, root+"."+member+".")
				if value, ok := got[last]; !ok || !slices.Contains(values, value) {
					t.Fatalf("List(%q) = %q lacks %q", root, values, last)
				}
			}
			structs, _ := request.Params.Structs(root, member)
			for _, s := range structs {
				s.List("Key", "member")
				s.String("Key")
			}
		}
	})
}
