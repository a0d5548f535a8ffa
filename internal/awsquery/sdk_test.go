package awsquery_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/redshift"
	"github.com/aws/aws-sdk-go-v2/service/redshift/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"

	"github.com/daypass/daypass/internal/awsquery"
)

// serve answers every call the way respond says.
func serve(t *testing.T, namespace string, respond func(*awsquery.Request) (awsquery.Result, *awsquery.Error)) aws.Config {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		request, err := awsquery.Parse(r, body)
		if err != nil {
			t.Errorf("Parse(%s) = %v", body, err)
			return
		}
		if result, refusal := respond(request); refusal != nil {
			awsquery.WriteError(w, namespace, requestID, refusal)
		} else {
			awsquery.WriteResult(w, namespace, request.Action, requestID, result)
		}
	}))
	t.Cleanup(server.Close)
	return aws.Config{
		Region:       "eu-central-1",
		BaseEndpoint: aws.String(server.URL),
		Credentials:  credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", ""),
		Retryer:      func() aws.Retryer { return aws.NopRetryer{} },
	}
}

// TestGoSDK: we can read what the AWS SDK for Go sends, and it can read our answers.
func TestGoSDK(t *testing.T) {
	config := serve(t, redshiftNamespace, func(r *awsquery.Request) (awsquery.Result, *awsquery.Error) {
		if r.Version != "2012-12-01" {
			t.Errorf("Version = %q", r.Version)
		}
		switch r.Action {
		case "DescribeClusters":
			return clusters, nil
		case "GetClusterCredentials":
			user, _, err1 := r.Params.String("DbUser")
			duration, _, err2 := r.Params.Int("DurationSeconds")
			create, _, err3 := r.Params.Bool("AutoCreate")
			groups, _, err4 := r.Params.List("DbGroups", "DbGroup")
			if err := errors.Join(err1, err2, err3, err4); err != nil {
				t.Error(err)
			}
			return asUser(fmt.Sprintf("%s %d %t %q", user, duration, create, groups)), nil
		}
		return nil, &awsquery.Error{Code: "ClusterNotFound", Status: 404, Message: "Cluster <é> not found."}
	})
	client := redshift.NewFromConfig(config)

	const user = "a+b@c d\r\n\té𝄞&<>"
	got, err := client.GetClusterCredentials(t.Context(), &redshift.GetClusterCredentialsInput{
		DbUser: aws.String(user), DurationSeconds: aws.Int32(900), AutoCreate: aws.Bool(true), DbGroups: []string{"g1", "", "g=&2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := user + ` 900 true ["g1" "" "g=&2"]`; aws.ToString(got.DbUser) != want {
		t.Errorf("DbUser = %q, want %q", aws.ToString(got.DbUser), want)
	}
	if want := alice.expiration.Truncate(time.Millisecond); !got.Expiration.Equal(want) {
		t.Errorf("Expiration = %v, want %v", got.Expiration, want)
	}

	described, err := client.DescribeClusters(t.Context(), nil)
	if err != nil || len(described.Clusters) != 2 {
		t.Fatalf("DescribeClusters = %+v, %v", described, err)
	}
	two := described.Clusters[1]
	if aws.ToString(two.ClusterIdentifier) != "two" || aws.ToInt32(two.Endpoint.Port) != 5439 ||
		aws.ToBool(two.PubliclyAccessible) || fmt.Sprint(two.PendingActions) != "[x y]" || len(two.Tags) != 0 {
		t.Errorf("DescribeClusters = %+v", two)
	}

	_, err = client.DescribeLoggingStatus(t.Context(), &redshift.DescribeLoggingStatusInput{ClusterIdentifier: aws.String("é")})
	var notFound *types.ClusterNotFoundFault
	var response interface{ ServiceRequestID() string }
	if !errors.As(err, &notFound) || notFound.ErrorMessage() != "Cluster <é> not found." {
		t.Errorf("DescribeLoggingStatus = %v", err)
	}
	if !errors.As(err, &response) || response.ServiceRequestID() != requestID {
		t.Errorf("DescribeLoggingStatus = %v, without the request id", err)
	}
}

// asUser is alice's answer for another user name.
func asUser(user string) awsquery.Result {
	c := alice
	c.user = user
	return c
}

// TestGoSDKStructures: a list of structures as sts takes it.
func TestGoSDKStructures(t *testing.T) {
	config := serve(t, stsNamespace, func(r *awsquery.Request) (awsquery.Result, *awsquery.Error) {
		tags, err := r.Params.Structs("Tags", "member")
		if err != nil {
			t.Error(err)
		}
		text := ""
		for _, tag := range tags {
			key, _, err1 := tag.String("Key")
			value, _, err2 := tag.String("Value")
			if err := errors.Join(err1, err2); err != nil {
				t.Error(err)
			}
			text += key + "=" + value + ";"
		}
		return nil, &awsquery.Error{Code: "AccessDenied", Status: 403, Message: text}
	})
	_, err := sts.NewFromConfig(config).AssumeRole(t.Context(), &sts.AssumeRoleInput{
		RoleArn: aws.String("arn:aws:iam::123456789012:role/etl"), RoleSessionName: aws.String("session"),
		Tags: []ststypes.Tag{{Key: aws.String("team"), Value: aws.String("data")}, {Key: aws.String("empty"), Value: aws.String("")}},
	})
	if refusal, ok := errors.AsType[smithy.APIError](err); !ok || refusal.ErrorCode() != "AccessDenied" || refusal.ErrorMessage() != "team=data;empty=;" {
		t.Errorf("AssumeRole = %v", err)
	}
}
