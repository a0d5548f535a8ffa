package api_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsarn "github.com/aws/aws-sdk-go-v2/aws/arn"
	sdkiam "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/redshift"
	"github.com/aws/aws-sdk-go-v2/service/redshift/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

// terraform makes the calls of Terraform's AWS provider, and fails where the provider fails
// (hashicorp/terraform-provider-aws, internal/conns and internal/service/redshift, and
// hashicorp/aws-sdk-go-base).
type terraform struct {
	*server
	user string
}

// configure is the start of the provider: it learns the account and the partition, and
// fails if none of its methods finds them.
func (tf terraform) configure(t *testing.T, skipCredentialsValidation, skipRequestingAccountID bool) (account, partition string) {
	t.Helper()
	parse := func(text *string) (string, string) {
		a, err := awsarn.Parse(aws.ToString(text))
		if err != nil {
			t.Fatalf("the ARN %q: %v", aws.ToString(text), err)
		}
		return a.AccountID, a.Partition
	}
	identity := func() (string, string) {
		got, err := tf.sts(tf.user).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
		if err != nil {
			t.Fatalf("validating provider credentials: %v", err)
		}
		return parse(got.Arn)
	}
	switch {
	case !skipCredentialsValidation:
		return identity()
	case skipRequestingAccountID:
		return "", "aws"
	}
	// The provider looks up the access key's IAM user first. If that is refused, for any reason,
	// it goes on to the next method.
	user, err := tf.iam(tf.user).GetUser(t.Context(), &sdkiam.GetUserInput{})
	var fault smithy.APIError
	switch {
	case err == nil:
		return parse(user.User.Arn)
	case !errors.As(err, &fault) || fault.ErrorFault() == smithy.FaultServer:
		t.Fatalf("iam:GetUser: %v, want a refusal", err)
	}
	return identity()
}

// cluster is the data source aws_redshift_cluster.
func (tf terraform) cluster(t *testing.T, id string) error {
	t.Helper()
	client := tf.redshift(tf.user)
	var found []types.Cluster
	for pages := redshift.NewDescribeClustersPaginator(client, &redshift.DescribeClustersInput{ClusterIdentifier: &id}); pages.HasMorePages(); {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			return err
		}
		found = append(found, page.Clusters...)
	}
	if len(found) != 1 {
		t.Fatalf("%d clusters", len(found))
	}
	c := found[0]
	if aws.ToString(c.ClusterIdentifier) != id {
		t.Errorf("ClusterIdentifier is %q: the provider takes the cluster for gone", aws.ToString(c.ClusterIdentifier))
	}
	switch status := aws.ToString(c.AvailabilityZoneRelocationStatus); status {
	case "enabled", "disabled", "pending_enabling", "pending_disabling":
	default:
		t.Errorf("unexpected AvailabilityZoneRelocationStatus value %q returned by API", status)
	}
	switch status := strings.ToLower(aws.ToString(c.MultiAZ)); status {
	case "enabled", "disabled":
	default:
		t.Errorf("unexpected MultiAZ attribute value %q returned by API", status)
	}
	// The provider reads the port without checking that there is an endpoint.
	if c.Endpoint == nil || aws.ToInt32(c.Endpoint.Port) != 5439 || aws.ToString(c.DBName) != "dev" || len(c.ClusterNodes) != 0 {
		t.Errorf("DescribeClusters = %+v", c)
	}
	for _, tag := range c.Tags {
		if tag.Key == nil || tag.Value == nil {
			t.Errorf("a tag without a key or a value: %+v", tag)
		}
	}
	logging, err := client.DescribeLoggingStatus(t.Context(), &redshift.DescribeLoggingStatusInput{ClusterIdentifier: &id})
	if err == nil && aws.ToBool(logging.LoggingEnabled) {
		t.Errorf("DescribeLoggingStatus = %+v, want it off", logging)
	}
	return err
}

// credentials is the data source aws_redshift_cluster_credentials, which sends AutoCreate
// and DurationSeconds with their defaults.
func (tf terraform) credentials(t *testing.T, user string, groups ...string) error {
	t.Helper()
	got, err := tf.redshift(tf.user).GetClusterCredentials(t.Context(), &redshift.GetClusterCredentialsInput{
		ClusterIdentifier: aws.String("examplecluster"), DbUser: &user, DbName: aws.String("dev"), DbGroups: groups,
		AutoCreate: aws.Bool(false), DurationSeconds: aws.Int32(900),
	})
	if err != nil {
		return err
	}
	expires := aws.ToTime(got.Expiration)
	if aws.ToString(got.DbUser) != "IAM:"+user || aws.ToString(got.DbPassword) == "" || time.Until(expires) < 14*time.Minute || time.Until(expires) > 15*time.Minute {
		t.Errorf("GetClusterCredentials = %v, %v", aws.ToString(got.DbUser), expires.Format(time.RFC3339))
	}
	return nil
}

// TestTerraform: the provider starts, whatever it is configured to skip, and both data sources
// can be read with no more than the necessary rights.
func TestTerraform(t *testing.T) {
	spec := example(t)
	spec.Users = append(spec.Users, user("tf", policy(t, "p", `{"Effect":"Allow","Action":["redshift:DescribeClusters","redshift:DescribeLoggingStatus"],
			"Resource":"`+arn+`cluster:examplecluster"},
		{"Effect":"Allow","Action":"redshift:GetClusterCredentials","Resource":["`+arn+`dbuser:examplecluster/alice","`+arn+`dbname:examplecluster/dev"]},
		{"Effect":"Allow","Action":"redshift:JoinGroup","Resource":"`+arn+`dbgroup:examplecluster/analysts"}`)))
	tf := terraform{newServer(t, spec), "tf"}
	for _, skip := range [][2]bool{{false, false}, {false, true}, {true, false}, {true, true}} {
		account, partition := tf.configure(t, skip[0], skip[1])
		if want := "123456789012"; account != want && !(skip[0] && skip[1]) || partition != "aws" {
			t.Errorf("skip_credentials_validation %v, skip_requesting_account_id %v: account %q, partition %q", skip[0], skip[1], account, partition)
		}
	}
	if err := tf.cluster(t, "examplecluster"); err != nil {
		t.Errorf("aws_redshift_cluster: %v", err)
	}
	if err := tf.credentials(t, "alice", "analysts"); err != nil {
		t.Errorf("aws_redshift_cluster_credentials: %v", err)
	}
	if err := tf.credentials(t, "bob"); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("credentials of another user: %v, want AccessDenied", err)
	}
	if err := tf.cluster(t, "Other"); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("another cluster: %v, want AccessDenied", err)
	}
	root := terraform{tf.server, "root"}
	var fault *types.ClusterNotFoundFault
	if err := root.cluster(t, "nosuch"); !errors.As(err, &fault) {
		t.Errorf("no cluster: got %v, want ClusterNotFoundFault", err)
	}
	client := tf.redshift("root")
	if _, err := client.DescribeLoggingStatus(t.Context(), &redshift.DescribeLoggingStatusInput{ClusterIdentifier: aws.String("nosuch")}); !errors.As(err, &fault) {
		t.Errorf("DescribeLoggingStatus of no cluster: got %v, want ClusterNotFoundFault", err)
	}
	client = tf.redshift("tf")
	if _, err := client.DescribeLoggingStatus(t.Context(), &redshift.DescribeLoggingStatusInput{ClusterIdentifier: aws.String("Other")}); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("DescribeLoggingStatus of another cluster: got %v, want AccessDenied", err)
	}
}
