package awscli_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/awscli"
	"github.com/daypass/daypass/internal/awscli/pyvalue"
	"github.com/daypass/daypass/internal/awsconfig"
)

// TestEndpointOfTheChain: the role of a profile is assumed at the same endpoint as with the AWS
// CLI: the one for STS if it is configured, else the one for all services.
func TestEndpointOfTheChain(t *testing.T) {
	var actions []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		action := r.PostForm.Get("Action")
		actions = append(actions, r.URL.Path+action)
		result := "<Clusters/>"
		if action == "AssumeRole" {
			result = `<Credentials><AccessKeyId>ASIAIOSFODNN7EXAMPLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
				<SessionToken>t</SessionToken><Expiration>` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `</Expiration></Credentials>
				<AssumedRoleUser><Arn>a</Arn><AssumedRoleId>i</AssumedRoleId></AssumedRoleUser>`
		}
		fmt.Fprintf(w, "<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></%[1]sResponse>", action, result)
	}))
	defer server.Close()
	const sections = "services = local\n[services local]\nredshift =\n  endpoint_url = STUB/redshift\nsts =\n  endpoint_url = STUB/sts\n"
	for _, test := range []struct {
		name, config string
		env          map[string]string
		want         []string
	}{
		{name: "for all services", env: map[string]string{"AWS_ENDPOINT_URL": "STUB"}, want: []string{"/AssumeRole", "/DescribeClusters"}},
		{name: "profile", config: "endpoint_url = STUB/\n", want: []string{"/AssumeRole", "/DescribeClusters"}},
		{name: "STS's own", env: map[string]string{"AWS_ENDPOINT_URL": "STUB", "AWS_ENDPOINT_URL_STS": "STUB/a"}, want: []string{"/aAssumeRole", "/DescribeClusters"}},
		{name: "sections", config: sections, want: []string{"/stsAssumeRole", "/redshiftDescribeClusters"}},
		{name: "sections, empty variables", config: sections, env: map[string]string{"AWS_ENDPOINT_URL": "EMPTY", "AWS_ENDPOINT_URL_STS": "EMPTY"}, want: []string{"/stsAssumeRole", "/redshiftDescribeClusters"}},
		{name: "variable before sections", config: sections, env: map[string]string{"AWS_ENDPOINT_URL": "STUB"}, want: []string{"/AssumeRole", "/DescribeClusters"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			actions = nil
			awsCase{env: test.env, config: `[profile base]
aws_access_key_id = AKIAIOSFODNN7EXAMPLE
aws_secret_access_key = secret
[profile etl]
role_arn = arn:aws:iam::123456789012:role/etl
source_profile = base
region = us-east-1
` + test.config}.prepare(t, server.URL)
			client, err := awscli.NewClient(t.Context(), awsconfig.Settings{Profile: "etl", ConnectTimeout: time.Second, ReadTimeout: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			var params pyvalue.Object
			if _, err := awscli.CallByName(client, t.Context(), "DescribeClusters", &params); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(actions, test.want) {
				t.Errorf("calls = %q, want %q", actions, test.want)
			}
		})
	}
}
