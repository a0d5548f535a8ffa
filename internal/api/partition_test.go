package api_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/directory"
)

// Every ARN has the region's partition, and statements that name another partition match
// nothing.
func TestPartitions(t *testing.T) {
	for _, row := range []struct{ region, partition, global string }{
		{"us-east-1", "aws", "us-east-1"},
		{"eu-central-1", "aws", "us-east-1"},
		{"cn-northwest-1", "aws-cn", "cn-north-1"},
		{"us-gov-east-1", "aws-us-gov", "us-gov-west-1"},
		{"us-iso-west-1", "aws-iso", "us-iso-east-1"},
		{"us-isob-east-1", "aws-iso-b", "us-isob-east-1"},
		{"eu-isoe-west-1", "aws-iso-e", "eu-isoe-west-1"},
		{"us-isof-east-1", "aws-iso-f", "us-isof-south-1"},
		{"eusc-de-east-1", "aws-eusc", "eusc-de-east-1"},
	} {
		t.Run(row.region, func(t *testing.T) {
			i := newIDP(t)
			other := "aws-cn"
			if row.partition == other {
				other = "aws"
			}
			here := func(service, resource string) string {
				region := row.region
				if service != "redshift" {
					region = ""
				}
				return "arn:" + row.partition + ":" + service + ":" + region + ":" + account + ":" + resource
			}
			spec := example(t)
			spec.Users = append(spec.Users, user("eve", policy(t, "p", `{"Effect":"Allow","Action":"*","Resource":"*"},
				{"Effect":"Deny","Action":"redshift:*","Resource":["`+here("redshift", "dbuser:*/boss")+`","arn:`+other+`:redshift:*:*:dbuser:*/alice"]},
				{"Effect":"Deny","Action":"redshift:DescribeClusters","Resource":"*","Condition":{"ArnNotLike":{"aws:PrincipalArn":"`+here("iam", "user/*")+`"}}}`)))
			spec.Users[len(spec.Users)-1].MFASeeds = []directory.MFADevice{{Seed: mfaSeed}}
			spec.Roles = []directory.RoleSpec{{Name: "etl", Trust: trust(t, `{"Effect":"Allow","Principal":{"AWS":"`+here("iam", "user/eve")+`"},"Action":"sts:AssumeRole"},
				{"Effect":"Allow","Principal":{"Federated":"`+here("iam", "oidc-provider/"+strings.TrimPrefix(i.URL, "http://"))+`"},"Action":"sts:AssumeRoleWithWebIdentity"}`)}}
			spec.Providers = []directory.Provider{{Issuer: i.URL, Audiences: []string{"daypass"}}}
			spec.Account, spec.Region = account, row.region
			d, err := directory.New(spec)
			if err != nil {
				t.Fatal(err)
			}
			s := &server{t: t, keyring: newKeyring(), directory: d, now: start}
			h := httptest.NewServer(api.New(s.config()))
			defer h.Close()
			s.url = h.URL
			signed := func(region, service, form string) answer {
				r := s.request("POST", form)
				sum := sha256.Sum256([]byte(form))
				if err := v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: keyOf("eve"), SecretAccessKey: secret},
					r, hex.EncodeToString(sum[:]), service, region, start); err != nil {
					t.Fatal(err)
				}
				return s.do(r)
			}
			get := func(dbUser string) answer {
				return signed(row.region, "redshift", query("2012-12-01", "Action", "GetClusterCredentials", "DbUser", dbUser, "ClusterIdentifier", "examplecluster"))
			}
			if a := get("alice"); a.status != 200 {
				t.Errorf("a Deny for %s: got %d %s, want it to match nothing", other, a.status, a.body)
			}
			if a := get("boss"); a.status != 403 || !strings.Contains(a.body, here("redshift", "dbuser:examplecluster/boss")) {
				t.Errorf("a Deny for %s: got %d %s", row.partition, a.status, a.body)
			}
			if a := signed(row.region, "redshift", query("2012-12-01", "Action", "DescribeClusters")); a.status != 200 {
				t.Errorf("aws:PrincipalArn: got %d %s", a.status, a.body)
			}
			if a := signed(row.region, "sts", query("2011-06-15", "Action", "GetCallerIdentity")); !strings.Contains(a.body, "<Arn>"+here("iam", "user/eve")+"<") {
				t.Errorf("GetCallerIdentity = %s", a.body)
			}
			assumed := signed(row.region, "sts", query("2011-06-15", "Action", "AssumeRole", "RoleArn", here("iam", "role/etl"), "RoleSessionName", "ab")).assumed(t)
			if want := here("sts", "assumed-role/etl/ab"); assumed.ARN != want {
				t.Errorf("the role session is %s, want %s", assumed.ARN, want)
			}
			if a := signed(row.region, "sts", query("2011-06-15", "Action", "AssumeRole", "RoleArn", "arn:"+other+":iam::"+account+":role/etl", "RoleSessionName", "ab")); a.status != 403 {
				t.Errorf("a role of another partition: got %d %s", a.status, a.body)
			}
			if a := signed(row.region, "sts", query("2011-06-15", "Action", "GetSessionToken", "SerialNumber", here("iam", "mfa/eve"), "TokenCode", code(start))); a.status != 200 {
				t.Errorf("the MFA device: got %d %s", a.status, a.body)
			}
			a := s.do(s.request("POST", query("2011-06-15", "Action", "AssumeRoleWithWebIdentity", "RoleArn", here("iam", "role/etl"),
				"RoleSessionName", "ab", "WebIdentityToken", i.token(t, start, nil))))
			if a.status != 200 {
				t.Errorf("AssumeRoleWithWebIdentity: got %d %s", a.status, a.body)
			}
			if id := s.lastLine().Identity; !strings.HasPrefix(id.IdentityProvider, "arn:"+row.partition+":iam::") {
				t.Errorf("the audit record has the provider %s", id.IdentityProvider)
			}
			// Calls of IAM are signed for the region of the partition's global endpoint.
			simulate := query("2010-05-08", "Action", "SimulatePrincipalPolicy", "PolicySourceArn", here("iam", "user/eve"), "ActionNames.member.1", "redshift:JoinGroup")
			if a := signed(row.global, "iam", simulate); a.status != 200 {
				t.Errorf("signed for %s: got %d %s", row.global, a.status, a.body)
			}
			if row.global != "us-east-1" {
				if a := signed("us-east-1", "iam", simulate); a.status != 403 {
					t.Errorf("signed for another partition: got %d %s", a.status, a.body)
				}
			}
		})
	}
}
