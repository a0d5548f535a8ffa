package api_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdkiam "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/iam"
)

func (s *server) iamCall(user string, form ...string) answer {
	s.t.Helper()
	return s.do(s.signed(user, "iam", "POST", query("2010-05-08", form...)))
}

// For a caller who may not simulate, no document is parsed.
func TestSimulateParsesForWhoMayAsk(t *testing.T) {
	s := newServer(t, example(t))
	s.silent = true
	document := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"ArnLike":{"a:b":["*"` +
		strings.Repeat(`,"::::::"`, 14000) + `]}}}}`
	cost := func(user string) (answer, uint64) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		a := s.iamCall(user, "Action", "SimulateCustomPolicy", "PolicyInputList.member.1", document, "ActionNames.member.1", "s3:x")
		runtime.ReadMemStats(&after)
		return a, after.TotalAlloc - before.TotalAlloc
	}
	a, refused := cost("bob")
	if a.status != 403 || a.fault(t).Code != "AccessDenied" {
		t.Errorf("got %d %s, want AccessDenied", a.status, a.body)
	}
	a, allowed := cost("root")
	if a.status != 200 || refused > allowed/2 {
		t.Errorf("got %d; being refused takes %d bytes, being answered %d", a.status, refused, allowed)
	}
}

// The size of an answer is bounded whatever the request, and the pages together have all
// results.
func TestSimulateAnswerIsBounded(t *testing.T) {
	s := newServer(t, example(t))
	s.setRealTime()
	form := []string{"Action", "SimulateCustomPolicy", "MaxItems", "1000",
		"PolicyInputList.member.1", `{"Statement":[` + strings.TrimSuffix(strings.Repeat(`{"Effect":"Allow","Action":"*","Resource":"*"},`, 2600), ",") + `]}`,
		"PolicyInputList.member.2", `{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"a:` + strings.Repeat("&", 1000) + `":"x"}}}]}`}
	for i := range 200 {
		form = append(form, "ActionNames.member."+strconv.Itoa(i+1), "s3:a"+strconv.Itoa(i))
	}
	marker, results := "", 0
	for pages := 1; pages <= 3; pages++ {
		a := s.iamCall("root", append(form, "Marker", marker)...)
		if a.status != 200 || len(a.body) > iam.MaxSimulateOutput+1000 {
			t.Fatalf("page %d: got %d with %d bytes, want at most a mebibyte", pages, a.status, len(a.body))
		}
		results += strings.Count(a.body, "<EvalDecision>allowed<")
		_, marker, _ = strings.Cut(a.body, "<Marker>")
		marker, _, _ = strings.Cut(marker, "<")
		if marker != strconv.Itoa(results) {
			t.Fatalf("page %d: after %d results the marker is %q", pages, results, marker)
		}
	}
}

func TestSimulateEndsWithItsCaller(t *testing.T) {
	s := newServer(t, example(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	r := s.signed("root", "iam", "POST", query("2010-05-08", "Action", "SimulateCustomPolicy",
		"PolicyInputList.member.1", `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`, "ActionNames.member.1", "s3:x"))
	api.New(s.config()).ServeHTTP(w, r.WithContext(ctx))
	if w.Code != 400 || !strings.Contains(w.Body.String(), "<Code>RequestAborted<") || s.lastLine().ErrorCode != "RequestAborted" {
		t.Errorf("got %d %s, audited as %s", w.Code, w.Body, s.lastLine().ErrorCode)
	}
}

// The API gives the same answer as iam.Simulate, whose result `daypass policy simulate` prints.
func TestSimulateIsOne(t *testing.T) {
	s := newServer(t, example(t))
	s.setRealTime()
	const ana, everything = "arn:aws:iam::123456789012:user/ana", `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`
	trust := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + ana + `"},"Action":"sts:AssumeRole"}]}`
	entry := func(kind string, values ...string) []iam.ContextEntry {
		return []iam.ContextEntry{{ContextKeyName: "a:b", ContextKeyType: kind, ContextKeyValues: values}}
	}
	for name, tt := range map[string]struct {
		in   iam.SimulateInput
		want string // the first decision; empty for InvalidInput
	}{
		"allowed":                 {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"s3:GetObject", "redshift:JoinGroup"}}, "allowed"},
		"trust of a named user":   {iam.SimulateInput{PolicyInputList: []string{`{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}`}, ActionNames: []string{"sts:AssumeRole"}, CallerArn: ana, ResourcePolicy: trust}, "allowed"},
		"trust alone":             {iam.SimulateInput{ActionNames: []string{"sts:AssumeRole"}, CallerArn: ana, ResourcePolicy: trust}, "allowed"},
		"trust, another owner":    {iam.SimulateInput{ActionNames: []string{"sts:AssumeRole"}, CallerArn: ana, ResourcePolicy: trust, ResourceOwner: "arn:aws:iam::210987654321:root"}, "implicitDeny"},
		"a nonsensical owner":     {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"a:b"}, ResourceOwner: "nonsense"}, ""},
		"denied by the boundary":  {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"a:b"}, PermissionsBoundaryPolicyInputList: []string{`{"Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}`}}, "explicitDeny"},
		"outside of the boundary": {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"a:b"}, PermissionsBoundaryPolicyInputList: []string{`{"Statement":{"Effect":"Allow","Action":"c:*","Resource":"*"}}`}}, "implicitDeny"},
		"a missing key":           {iam.SimulateInput{PolicyInputList: []string{`{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Bool":{"a:b":"true"}}}}`}, ActionNames: []string{"a:b"}}, "implicitDeny"},
		"a key":                   {iam.SimulateInput{PolicyInputList: []string{`{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Bool":{"a:b":"true"}}}}`}, ActionNames: []string{"a:b"}, ContextEntries: entry("boolean", "true")}, "allowed"},
		"a second page":           {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"a:b", "a:c", "a:d"}, MaxItems: 1, Marker: "1"}, "allowed"},
		"no service":              {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"foo"}}, ""},
		"a wildcard":              {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"redshift:*"}}, ""},
		"a blank":                 {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"s3:Get Obj"}}, ""},
		"no ARN":                  {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"a:b"}, ResourceArns: []string{"notanarn"}}, ""},
		"a bad marker":            {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"a:b"}, Marker: "x"}, ""},
		"a bad document":          {iam.SimulateInput{PolicyInputList: []string{"{"}, ActionNames: []string{"a:b"}}, ""},
		"no number":               {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"a:b"}, ContextEntries: entry("numeric", "abc")}, ""},
		"no boolean":              {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"a:b"}, ContextEntries: entry("boolean", "maybe")}, ""},
		"no address":              {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"a:b"}, ContextEntries: entry("ip", "x")}, ""},
		"no date":                 {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"a:b"}, ContextEntries: entry("dateList", "x")}, ""},
		"no base64":               {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"a:b"}, ContextEntries: entry("binary", "!")}, ""},
		"no list":                 {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"a:b"}, ContextEntries: entry("string", "x", "y")}, ""},
		"no type":                 {iam.SimulateInput{PolicyInputList: []string{everything}, ActionNames: []string{"a:b"}, ContextEntries: entry("text", "x")}, ""},
	} {
		want, wantErr := iam.Simulate(t.Context(), &tt.in, nil)
		got, err := s.iam("root").SimulateCustomPolicy(t.Context(), sdkInput(&tt.in))
		var bad *types.InvalidInputException
		switch {
		case tt.want == "":
			if wantErr == nil || !errors.As(err, &bad) || bad.ErrorMessage() != wantErr.Error() {
				t.Errorf("%s: the API answers %v, want InvalidInput: %v", name, err, wantErr)
			}
		case err != nil || wantErr != nil:
			t.Errorf("%s: got %v and %v", name, err, wantErr)
		default:
			if answered := ofSDK(got); !reflect.DeepEqual(answered, want) || want.EvaluationResults[0].EvalDecision != tt.want {
				t.Errorf("%s: the API answers %+v, iam.Simulate %+v, want %s", name, answered, want, tt.want)
			}
		}
	}
}

// The SDK does not know session policies.
func TestSimulateSessionPolicy(t *testing.T) {
	a := newServer(t, example(t)).iamCall("root", "Action", "SimulateCustomPolicy", "ActionNames.member.1", "a:b",
		"PolicyInputList.member.1", `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`,
		"SessionPolicyInputList.member.1", `{"Statement":{"Effect":"Allow","Action":"c:*","Resource":"*"}}`)
	if !strings.Contains(a.body, "<EvalDecision>implicitDeny<") {
		t.Errorf("got %d %s, want implicitDeny", a.status, a.body)
	}
}

func sdkInput(in *iam.SimulateInput) *sdkiam.SimulateCustomPolicyInput {
	out := &sdkiam.SimulateCustomPolicyInput{
		PolicyInputList: in.PolicyInputList, PermissionsBoundaryPolicyInputList: in.PermissionsBoundaryPolicyInputList,
		ActionNames: in.ActionNames, ResourceArns: in.ResourceArns,
	}
	if out.PolicyInputList == nil {
		out.PolicyInputList = []string{} // the SDK requires it
	}
	for _, text := range []struct {
		from string
		to   **string
	}{{in.CallerArn, &out.CallerArn}, {in.ResourcePolicy, &out.ResourcePolicy}, {in.ResourceOwner, &out.ResourceOwner}, {in.Marker, &out.Marker}} {
		if text.from != "" {
			*text.to = aws.String(text.from)
		}
	}
	if in.MaxItems != 0 {
		out.MaxItems = aws.Int32(int32(in.MaxItems))
	}
	for _, e := range in.ContextEntries {
		out.ContextEntries = append(out.ContextEntries, types.ContextEntry{ContextKeyName: aws.String(e.ContextKeyName),
			ContextKeyType: types.ContextKeyTypeEnum(e.ContextKeyType), ContextKeyValues: e.ContextKeyValues})
	}
	return out
}

func ofSDK(out *sdkiam.SimulateCustomPolicyOutput) *iam.SimulateOutput {
	answer := &iam.SimulateOutput{IsTruncated: out.IsTruncated, Marker: aws.ToString(out.Marker)}
	for _, r := range out.EvaluationResults {
		one := iam.EvaluationResult{EvalActionName: *r.EvalActionName, EvalResourceName: *r.EvalResourceName, EvalDecision: string(r.EvalDecision),
			MatchedStatements: []iam.MatchedStatement{}, MissingContextValues: append([]string{}, r.MissingContextValues...)}
		if d := r.PermissionsBoundaryDecisionDetail; d != nil {
			one.PermissionsBoundaryDecisionDetail = &iam.PermissionsBoundaryDecisionDetail{AllowedByPermissionsBoundary: d.AllowedByPermissionsBoundary}
		}
		for _, m := range r.MatchedStatements {
			one.MatchedStatements = append(one.MatchedStatements, iam.MatchedStatement{SourcePolicyId: *m.SourcePolicyId, SourcePolicyType: string(m.SourcePolicyType),
				StartPosition: iam.Position{Line: int(m.StartPosition.Line), Column: int(m.StartPosition.Column)},
				EndPosition:   iam.Position{Line: int(m.EndPosition.Line), Column: int(m.EndPosition.Column)}})
		}
		answer.EvaluationResults = append(answer.EvaluationResults, one)
	}
	return answer
}
