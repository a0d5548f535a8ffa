package awscli_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/awscli"
	"github.com/daypass/daypass/internal/awscli/jmespath"
)

// TestEndpointOfTheChain: with one endpoint for everything, the role that a profile
// names is assumed there as well, as with the AWS CLI.
func TestEndpointOfTheChain(t *testing.T) {
	var actions []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		action := r.PostForm.Get("Action")
		actions = append(actions, action)
		result := "<Clusters/>"
		if action == "AssumeRole" {
			result = `<Credentials><AccessKeyId>ASIAIOSFODNN7EXAMPLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
				<SessionToken>t</SessionToken><Expiration>` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `</Expiration></Credentials>
				<AssumedRoleUser><Arn>a</Arn><AssumedRoleId>i</AssumedRoleId></AssumedRoleUser>`
		}
		fmt.Fprintf(w, "<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></%[1]sResponse>", action, result)
	}))
	defer server.Close()
	awsCase{}.prepare(t, server.URL)
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(`[profile base]
aws_access_key_id = AKIAIOSFODNN7EXAMPLE
aws_secret_access_key = secret
[profile etl]
role_arn = arn:aws:iam::123456789012:role/etl
source_profile = base
region = us-east-1
`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CONFIG_FILE", path)
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	client, err := awscli.NewClient(t.Context(), awscli.Settings{Profile: "etl", ConnectTimeout: time.Second, ReadTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var params jmespath.Object
	if _, err := client.Call(t.Context(), "DescribeClusters", &params); err != nil {
		t.Fatal(err)
	}
	if want := []string{"AssumeRole", "DescribeClusters"}; !slices.Equal(actions, want) {
		t.Errorf("calls = %q, want %q", actions, want)
	}
}
