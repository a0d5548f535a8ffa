package api_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/redshift"
	"github.com/aws/aws-sdk-go-v2/service/redshift/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/directory"
)

func equal(a, b credential.Grant) bool { return reflect.DeepEqual(a, b) }

func toString(r audit.CallRecord) string { return fmt.Sprintf("%+v", r) }

// The official SDK, with only the endpoint changed.
func TestSDK(t *testing.T) {
	ctx := context.Background()
	s := newServer(t, example(t))
	client := s.redshift("root")

	got, err := client.GetClusterCredentials(ctx, &redshift.GetClusterCredentialsInput{
		DbUser: aws.String("ana@example.com"), DbName: aws.String("dev"), ClusterIdentifier: aws.String("examplecluster"),
		DurationSeconds: aws.Int32(1800), AutoCreate: aws.Bool(true), DbGroups: []string{"analysts", "finance"},
	})
	if err != nil {
		t.Fatalf("GetClusterCredentials: %v", err)
	}
	if *got.DbUser != "IAMA:ana@example.com" {
		t.Errorf("DbUser is %q, want IAMA:ana@example.com", *got.DbUser)
	}
	grant, err := credential.Check(s.keyring.Verifier(), *got.DbPassword, s.clock())
	if err != nil {
		t.Fatalf("credential.Check: %v", err)
	}
	if !got.Expiration.Equal(grant.NotAfter) {
		t.Errorf("Expiration is %v, and the password's is %v", got.Expiration, grant.NotAfter)
	}

	_, err = client.GetClusterCredentials(ctx, &redshift.GetClusterCredentialsInput{
		DbUser: aws.String("ana"), ClusterIdentifier: aws.String("nosuch"), DbGroups: []string{}})
	if notFound, ok := errors.AsType[*types.ClusterNotFoundFault](err); !ok || notFound.ErrorMessage() != "Cluster nosuch not found." {
		t.Errorf("unknown cluster: got %v, want a ClusterNotFoundFault", err)
	}
	_, err = s.redshift("bob").GetClusterCredentials(ctx, &redshift.GetClusterCredentialsInput{
		DbUser: aws.String("bob"), ClusterIdentifier: aws.String("examplecluster")})
	if refused, ok := errors.AsType[smithy.APIError](err); !ok || refused.ErrorCode() != "AccessDenied" {
		t.Errorf("without a policy: got %v, want AccessDenied", err)
	}

	clusters, err := client.DescribeClusters(ctx, &redshift.DescribeClustersInput{TagKeys: []string{"env"}, TagValues: []string{"test", "prod"}})
	if err != nil || len(clusters.Clusters) != 1 {
		t.Fatalf("DescribeClusters = %v, %v, want examplecluster", clusters, err)
	}
	if c := clusters.Clusters[0]; *c.ClusterIdentifier != "examplecluster" || *c.Endpoint.Address != "127.0.0.1" ||
		*c.Endpoint.Port != 5439 || *c.DBName != "dev" || len(c.Tags) != 2 {
		t.Errorf("DescribeClusters = %+v", c)
	}
	domains, err := client.DescribeCustomDomainAssociations(ctx, &redshift.DescribeCustomDomainAssociationsInput{
		CustomDomainName: aws.String("other.example.com")})
	if err != nil || *domains.Associations[0].CertificateAssociations[0].ClusterIdentifier != "Other" {
		t.Errorf("DescribeCustomDomainAssociations = %v, %v, want Other", domains, err)
	}
	_, err = client.DescribeCustomDomainAssociations(ctx, &redshift.DescribeCustomDomainAssociationsInput{
		CustomDomainName: aws.String("no.example.com")})
	if _, ok := errors.AsType[*types.CustomDomainAssociationNotFoundFault](err); !ok {
		t.Errorf("unknown domain: got %v, want a CustomDomainAssociationNotFoundFault", err)
	}

	me, err := s.sts("ana").GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil || *me.Arn != "arn:aws:iam::123456789012:user/ana" || *me.Account != account || !strings.HasPrefix(*me.UserId, "AIDA") {
		t.Errorf("GetCallerIdentity = %v, %v, want ana", me, err)
	}
}

// The SDK's paginator visits every cluster once.
func TestPaging(t *testing.T) {
	spec := example(t)
	spec.Clusters = nil
	var want []string
	for i := range 250 {
		name := fmt.Sprintf("cluster-%03d", i)
		want = append(want, name)
		spec.Clusters = append(spec.Clusters, directory.Cluster{Identifier: name, Database: "dev", Host: "h", Port: 1,
			CustomDomains: []string{name + ".example.com"}})
	}
	s := newServer(t, spec)
	for _, size := range []*int32{nil, aws.Int32(20), aws.Int32(100)} {
		var got []string
		pages := redshift.NewDescribeClustersPaginator(s.redshift("root"), &redshift.DescribeClustersInput{MaxRecords: size})
		for pages.HasMorePages() {
			page, err := pages.NextPage(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range page.Clusters {
				got = append(got, *c.ClusterIdentifier)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("pages of %v: got %d clusters %v, want %d", size, len(got), got, len(want))
		}
		var domains int
		list := redshift.NewDescribeCustomDomainAssociationsPaginator(s.redshift("root"),
			&redshift.DescribeCustomDomainAssociationsInput{MaxRecords: size})
		for list.HasMorePages() {
			page, err := list.NextPage(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			domains += len(page.Associations)
		}
		if domains != 250 {
			t.Errorf("pages of %v: got %d associations, want 250", size, domains)
		}
	}
	for value, name := range map[string]string{"19": "MaxRecords", "==": "Marker", "foo": "Marker", "zzzz": "Marker", "Zm9vYmFyYmF6": "Marker"} {
		f := s.redshiftCall("root", "Action", "DescribeClusters", name, value).fault(t)
		if f.Code != "InvalidParameterValue" || !strings.Contains(f.Message, "parameter "+name) {
			t.Errorf("%s=%s: got %s %q, want InvalidParameterValue", name, value, f.Code, f.Message)
		}
	}
}

// Calls as Redshift's drivers send them: with an empty group list, with an empty custom
// domain, or with the gateway's own address as a custom domain.
func TestDriverForms(t *testing.T) {
	s := newServer(t, example(t))
	for name, form := range map[string][]string{
		"redshift_connector with a host": {"Action", "GetClusterCredentials", "DbUser", "ana", "DbName", "dev",
			"DbGroups", "", "AutoCreate", "false", "CustomDomainName", "127.0.0.1"},
		"redshift_connector falling back": {"Action", "GetClusterCredentials", "DbUser", "ana", "DbName", "dev",
			"DbGroups", "", "AutoCreate", "false", "ClusterIdentifier", "examplecluster"},
		"ODBC": {"Action", "GetClusterCredentials", "DbUser", "ana", "DbName", "dev",
			"AutoCreate", "false", "CustomDomainName", "", "ClusterIdentifier", "examplecluster"},
	} {
		if a := s.redshiftCall("root", form...); a.status != 200 {
			t.Errorf("%s: got %d %s, want 200", name, a.status, a.body)
		}
	}
}

func TestAuditRecord(t *testing.T) {
	s := newServer(t, example(t))
	a := s.redshiftCall("ana", "Action", "GetClusterCredentials", "DbUser", "ana", "ClusterIdentifier", "examplecluster",
		"DbGroups.DbGroup.1", "analysts", "AutoCreate", "true")
	if a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	got := s.lastLine()
	want := audit.CallRecord{
		Time: start, EventSource: "redshift.amazonaws.com", EventName: "GetClusterCredentials", Region: region, AccountID: account,
		RequestID: a.header.Get("x-amzn-RequestId"),
		Identity: audit.Identity{Type: "IAMUser", PrincipalID: s.userID("ana"), ARN: "arn:aws:iam::123456789012:user/ana",
			AccountID: account, AccessKeyID: keyOf("ana"), UserName: "ana"},
		Source: got.Source, UserAgent: "Go-http-client/1.1",
		Request: []audit.Field{audit.String("dbUser", "ana"), audit.String("clusterIdentifier", "examplecluster"),
			audit.Strings("dbGroups", []string{"analysts"}), audit.String("autoCreate", "true")},
		Response: []audit.Field{audit.String("dbUser", "IAMA:ana"), audit.Hidden("dbPassword"),
			audit.Time("expiration", start.Add(15*60e9))},
		CredentialID: got.CredentialID,
		Decisions: []audit.Decision{
			{Action: "redshift:GetClusterCredentials", Resource: arn + "dbuser:examplecluster/ana", Effect: "Allow",
				Layer: "identity-based policy", Policy: "own", Sid: "Own", Index: 0},
			{Action: "redshift:CreateClusterUser", Resource: arn + "dbuser:examplecluster/ana", Effect: "Allow",
				Layer: "identity-based policy", Policy: "own", Sid: "Create", Index: 1},
			{Action: "redshift:JoinGroup", Resource: arn + "dbgroup:examplecluster/analysts", Effect: "Allow",
				Layer: "identity-based policy", Policy: "analysts", Index: 0},
		},
	}
	if len(got.CredentialID) != 26 || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}

	// For an unknown caller, the record has only the access key id that the request names.
	s.do(s.signed("nobody", "redshift", "POST", query("2012-12-01", valid()...)))
	got = s.lastLine()
	if (got.Identity != audit.Identity{AccessKeyID: keyOf("nobody")}) || got.ErrorCode != "InvalidClientTokenId" ||
		got.EventName != "GetClusterCredentials" || got.Reason == "" {
		t.Errorf("an unknown key is recorded as %+v", got)
	}

	// Someone has swapped the id and the secret.
	const swapped = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY00"
	s.do(s.signedWith(aws.Credentials{AccessKeyID: swapped, SecretAccessKey: keyOf("ana")}, "redshift", "POST", query("2012-12-01", valid()...)))
	if got = s.lastLine(); got.ErrorCode != "InvalidClientTokenId" || strings.Contains(toString(got), swapped) {
		t.Errorf("a secret in the place of an access key id is recorded as %+v", got)
	}
}
