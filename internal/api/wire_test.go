package api_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/daypass/daypass/internal/credential"
)

const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

var uuid4 = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`)

// Answers, byte for byte, but for the request id and the password.
func TestGolden(t *testing.T) {
	s := newServer(t, example(t))
	password := regexp.MustCompile(`<DbPassword>[A-Za-z0-9_-]{100,512}</DbPassword>`)
	rows := []struct {
		name string
		send *http.Request
		want string
	}{
		{"GetClusterCredentials", s.signed("root", "redshift", "POST", query("2012-12-01", valid()...)),
			`<GetClusterCredentialsResponse xmlns="http://redshift.amazonaws.com/doc/2012-12-01/"><GetClusterCredentialsResult>` +
				`<DbUser>IAM:alice</DbUser><DbPassword>…</DbPassword><Expiration>2026-01-02T03:19:05.000Z</Expiration>` +
				`</GetClusterCredentialsResult><ResponseMetadata><RequestId>…</RequestId></ResponseMetadata></GetClusterCredentialsResponse>`},
		{"GetClusterCredentials with AutoCreate, for an hour",
			s.signed("root", "redshift", "POST", query("2012-12-01", valid("AutoCreate", "true", "DurationSeconds", "3600")...)),
			`<GetClusterCredentialsResponse xmlns="http://redshift.amazonaws.com/doc/2012-12-01/"><GetClusterCredentialsResult>` +
				`<DbUser>IAMA:alice</DbUser><DbPassword>…</DbPassword><Expiration>2026-01-02T04:04:05.000Z</Expiration>` +
				`</GetClusterCredentialsResult><ResponseMetadata><RequestId>…</RequestId></ResponseMetadata></GetClusterCredentialsResponse>`},
		{"DescribeClusters", s.signed("root", "redshift", "GET", query("2012-12-01", "Action", "DescribeClusters", "ClusterIdentifier", "examplecluster")),
			`<DescribeClustersResponse xmlns="http://redshift.amazonaws.com/doc/2012-12-01/"><DescribeClustersResult><Clusters><Cluster>` +
				`<ClusterIdentifier>examplecluster</ClusterIdentifier><ClusterStatus>available</ClusterStatus>` +
				`<ClusterAvailabilityStatus>Available</ClusterAvailabilityStatus><DBName>dev</DBName>` +
				`<Endpoint><Address>127.0.0.1</Address><Port>5439</Port></Endpoint>` +
				`<ClusterSecurityGroups></ClusterSecurityGroups><VpcSecurityGroups></VpcSecurityGroups>` +
				`<ClusterParameterGroups></ClusterParameterGroups><PendingModifiedValues></PendingModifiedValues>` +
				`<ClusterVersion>1.0</ClusterVersion><AllowVersionUpgrade>false</AllowVersionUpgrade>` +
				`<NumberOfNodes>1</NumberOfNodes><PubliclyAccessible>false</PubliclyAccessible><ClusterNodes></ClusterNodes>` +
				`<Tags><Tag><Key>env</Key><Value>test</Value></Tag><Tag><Key>team</Key><Value>data</Value></Tag></Tags>` +
				`<EnhancedVpcRouting>false</EnhancedVpcRouting><IamRoles></IamRoles><PendingActions></PendingActions>` +
				`<DeferredMaintenanceWindows></DeferredMaintenanceWindows><AvailabilityZoneRelocationStatus>disabled</AvailabilityZoneRelocationStatus>` +
				`<MultiAZ>Disabled</MultiAZ><CustomDomainName>warehouse.example.com</CustomDomainName>` +
				`</Cluster></Clusters></DescribeClustersResult><ResponseMetadata><RequestId>…</RequestId></ResponseMetadata></DescribeClustersResponse>`},
		{"DescribeClusters, none", s.signed("root", "redshift", "GET", query("2012-12-01", "Action", "DescribeClusters", "TagKeys.TagKey.1", "no")),
			`<DescribeClustersResponse xmlns="http://redshift.amazonaws.com/doc/2012-12-01/"><DescribeClustersResult><Clusters></Clusters>` +
				`</DescribeClustersResult><ResponseMetadata><RequestId>…</RequestId></ResponseMetadata></DescribeClustersResponse>`},
		{"DescribeCustomDomainAssociations", s.signed("root", "redshift", "POST", query("2012-12-01", "Action", "DescribeCustomDomainAssociations")),
			`<DescribeCustomDomainAssociationsResponse xmlns="http://redshift.amazonaws.com/doc/2012-12-01/"><DescribeCustomDomainAssociationsResult>` +
				`<Associations><Association><CertificateAssociations><CertificateAssociation><CustomDomainName>warehouse.example.com</CustomDomainName>` +
				`<ClusterIdentifier>examplecluster</ClusterIdentifier></CertificateAssociation></CertificateAssociations></Association></Associations>` +
				`</DescribeCustomDomainAssociationsResult><ResponseMetadata><RequestId>…</RequestId></ResponseMetadata></DescribeCustomDomainAssociationsResponse>`},
		{"DescribeLoggingStatus", s.signed("root", "redshift", "POST", query("2012-12-01", "Action", "DescribeLoggingStatus", "ClusterIdentifier", "examplecluster")),
			`<DescribeLoggingStatusResponse xmlns="http://redshift.amazonaws.com/doc/2012-12-01/"><DescribeLoggingStatusResult><LoggingEnabled>false</LoggingEnabled>` +
				`</DescribeLoggingStatusResult><ResponseMetadata><RequestId>…</RequestId></ResponseMetadata></DescribeLoggingStatusResponse>`},
		{"GetCallerIdentity", s.signed("root", "sts", "POST", query("2011-06-15", "Action", "GetCallerIdentity")),
			`<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>` +
				`<Arn>arn:aws:iam::123456789012:user/root</Arn><UserId>` + s.userID("root") + `</UserId><Account>123456789012</Account>` +
				`</GetCallerIdentityResult><ResponseMetadata><RequestId>…</RequestId></ResponseMetadata></GetCallerIdentityResponse>`},
		{"a refusal of redshift", s.signed("root", "redshift", "POST", query("2012-12-01", valid("ClusterIdentifier", "<x>")...)),
			`<ErrorResponse xmlns="http://redshift.amazonaws.com/doc/2012-12-01/"><Error><Type>Sender</Type><Code>ClusterNotFound</Code>` +
				`<Message>Cluster &lt;x&gt; not found.</Message></Error><RequestId>…</RequestId></ErrorResponse>`},
		{"a refusal of sts", s.signed("root", "sts", "POST", query("2011-06-15", "Action", "Fly")),
			`<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>InvalidAction</Code>` +
				`<Message>Could not find operation Fly for version 2011-06-15</Message></Error><RequestId>…</RequestId></ErrorResponse>`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			a := s.do(row.send)
			got := password.ReplaceAllString(a.body, "<DbPassword>…</DbPassword>")
			got = uuid4.ReplaceAllString(got, "…")
			if got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
			id := a.header.Get("x-amzn-RequestId")
			if !uuid4.MatchString(id) || !strings.Contains(a.body, "<RequestId>"+id+"</RequestId>") {
				t.Errorf("the header has the request id %q, the body another", id)
			}
			if got := a.header.Get("Content-Type"); got != "text/xml" {
				t.Errorf("Content-Type is %q, want text/xml", got)
			}
			if got := s.lastLine().RequestID; got != id {
				t.Errorf("the audit line has the request id %q, want %q", got, id)
			}
		})
	}
}

func (s *server) userID(name string) string {
	u, ok := s.directory.User(name)
	if !ok {
		s.t.Fatalf("no user %q", name)
	}
	return u.ID
}

// The password contains the grant, and works until the Expiration that the caller was given.
func TestCredential(t *testing.T) {
	s := newServer(t, example(t))
	a := s.redshiftCall("root", valid("DbGroups.DbGroup.2", "finance", "DbGroups.DbGroup.3", "analysts")...)
	password := regexp.MustCompile(`<DbPassword>(.*)</DbPassword>`).FindStringSubmatch(a.body)[1]
	expiration := time.Date(2026, 1, 2, 3, 19, 5, 0, time.UTC)
	grant, err := credential.Check(s.keyring.Verifier(), password, expiration.Add(-time.Nanosecond))
	if err != nil {
		t.Fatalf("credential.Check: %v", err)
	}
	want := credential.Grant{
		ID: s.lastLine().CredentialID, Cluster: "examplecluster", Database: "dev", DBUser: "alice",
		DBGroups: []string{"analysts", "finance"}, Principal: "arn:aws:iam::123456789012:user/root",
		IssuedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), NotAfter: expiration,
	}
	if grant.IssuedAt, grant.NotAfter = grant.IssuedAt.UTC(), grant.NotAfter.UTC(); !equal(grant, want) {
		t.Errorf("the credential is %+v\nwant %+v", grant, want)
	}
	if _, err := credential.Check(s.keyring.Verifier(), password, expiration); !errors.Is(err, credential.ErrExpired) {
		t.Errorf("at its Expiration: got %v, want it expired", err)
	}
	if strings.Contains(toString(s.lastLine()), password) {
		t.Error("the audit record has the password")
	}
}

// Ways in which clients send the same call.
func TestForms(t *testing.T) {
	s := newServer(t, example(t))
	q := query("2012-12-01", valid()...)
	presigned, _, err := v4.NewSigner().PresignHTTP(context.Background(),
		aws.Credentials{AccessKeyID: keyOf("root"), SecretAccessKey: secret},
		s.request("GET", q+"&X-Amz-Expires=300"), emptyHash, "redshift", region, start)
	if err != nil {
		t.Fatal(err)
	}
	link, _ := http.NewRequest("GET", presigned, nil)
	target, _ := url.Parse(s.url + "?" + q)
	bare := s.request("GET", q)
	bare.URL = target // no path at all
	for name, r := range map[string]*http.Request{
		"POST":      s.signed("root", "redshift", "POST", q),
		"GET":       s.signed("root", "redshift", "GET", q),
		"presigned": link,
	} {
		if a := s.do(r); a.status != 200 {
			t.Errorf("%s: got %d %s, want 200", name, a.status, a.body)
		}
	}
}

// Faults of the HTTP request or of its sender. Each answer is AWS XML with a code that clients
// know.
func TestHTTP(t *testing.T) {
	s := newServer(t, example(t))
	q := query("2012-12-01", valid()...)
	change := func(f func(*http.Request)) *http.Request {
		r := s.signed("root", "redshift", "POST", q)
		f(r)
		return r
	}
	at := func(path string) *http.Request {
		return change(func(r *http.Request) { r.URL.Path = path })
	}
	method := func(method string) *http.Request {
		return change(func(r *http.Request) { r.Method = method })
	}
	authorization := func(old, new string) *http.Request {
		return change(func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, new, 1))
		})
	}
	large := strings.NewReader(q + "&X=" + strings.Repeat("x", 64<<10))
	rows := []struct {
		name   string
		send   *http.Request
		status int
		code   string
	}{
		{"another path", at("/redshift"), 404, "UnknownOperationException"},
		{"a path with dots", at("/../"), 404, "UnknownOperationException"},
		{"a double slash", at("//"), 404, "UnknownOperationException"},
		{"PUT", method("PUT"), 405, "MethodNotAllowed"},
		{"DELETE", method("DELETE"), 405, "MethodNotAllowed"},
		{"OPTIONS", method("OPTIONS"), 405, "MethodNotAllowed"},
		{"nothing at all", s.request("GET", ""), 403, "MissingAuthenticationToken"},
		{"unsigned", s.request("POST", q), 403, "MissingAuthenticationToken"},
		{"unsigned and malformed", s.request("POST", "%zz"), 403, "MissingAuthenticationToken"},
		{"malformed", s.signed("root", "redshift", "POST", "Action=%zz"), 404, "MalformedQueryString"},
		{"another content type", change(func(r *http.Request) {
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "content-type;", "", 1))
		}), 403, "SignatureDoesNotMatch"},
		{"body too large", change(func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(large), int64(large.Len())
		}), 413, "RequestEntityTooLarge"},
		{"body too large, and nobody says so", change(func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat("x", 65<<10))), -1
		}), 413, "RequestEntityTooLarge"},
		{"another body", change(func(r *http.Request) {
			body := strings.Replace(q, "alice", "admin", 1)
			r.Body = io.NopCloser(strings.NewReader(body))
		}), 403, "SignatureDoesNotMatch"},
		{"unknown key", s.signed("nobody", "redshift", "POST", q), 403, "InvalidClientTokenId"},
		{"a token on a long-term key", change(func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "x") }),
			403, "InvalidClientTokenId"},
		{"another region", authorization("us-east-1", "eu-west-1"), 403, "SignatureDoesNotMatch"},
		{"another service", authorization("/redshift/", "/s3/"), 403, "SignatureDoesNotMatch"},
		{"service of another action", s.signed("root", "sts", "POST", q), 400, "InvalidAction"},
		{"half an Authorization", authorization("Signature=", "Sig="), 400, "IncompleteSignature"},
		{"a wrong signature", authorization("Signature=", "Signature=0"), 403, "SignatureDoesNotMatch"},
		{"no version", s.signed("root", "redshift", "POST", "Action=DescribeClusters"), 400, "InvalidAction"},
		{"version of another service", s.signed("root", "redshift", "POST", query("2011-06-15", "Action", "DescribeClusters")), 400, "InvalidAction"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			a := s.do(row.send)
			f := a.fault(t)
			if a.status != row.status || f.Code != row.code {
				t.Errorf("got %d %s %q, want %d %s", a.status, f.Code, f.Message, row.status, row.code)
			}
			if f.Type != "Sender" || f.RequestID != a.header.Get("x-amzn-RequestId") {
				t.Errorf("got type %q and request id %q, want Sender and %q", f.Type, f.RequestID, a.header.Get("x-amzn-RequestId"))
			}
		})
	}
	if a := s.do(method("HEAD")); a.status != 405 || a.header.Get("x-amzn-RequestId") == "" {
		t.Errorf("HEAD: got %d %v, want 405 with a request id", a.status, a.header)
	}
}

// A request whose body is shorter than its Content-Length is refused, not processed.
func TestIncompleteBody(t *testing.T) {
	s := newServer(t, example(t))
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nAction=")
	conn.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(conn)
	if !strings.Contains(string(answer), "<Code>IncompleteBody</Code>") {
		t.Errorf("got %s, want IncompleteBody", answer)
	}
}

// A call that cannot be recorded hands out nothing.
func TestAuditFailure(t *testing.T) {
	s := newServer(t, example(t))
	s.broken = errors.New("no space left on device")
	for name, form := range map[string][]string{"granted": valid(), "refused": valid("DbUser", "1")} {
		a := s.redshiftCall("root", form...)
		f := a.fault(t)
		if a.status != 503 || f.Code != "ServiceUnavailable" || f.Type != "Receiver" {
			t.Errorf("%s: got %d %s, want 503 ServiceUnavailable", name, a.status, a.body)
		}
		if strings.Contains(a.body, "DbPassword") || strings.Contains(a.body, "device") {
			t.Errorf("%s: the answer says too much: %s", name, a.body)
		}
	}
	s.broken = nil
	if a := s.redshiftCall("root", valid()...); a.status != 200 {
		t.Errorf("after the disk has room again: got %d %s, want 200", a.status, a.body)
	}
}

// A panic is an InternalFailure with a request id, recorded, and the next call is
// served.
func TestPanic(t *testing.T) {
	s := newServer(t, example(t))
	k := s.keyring
	s.keyring = nil
	a := s.redshiftCall("root", valid()...)
	f := a.fault(t)
	if a.status != 500 || f.Code != "InternalFailure" || f.Type != "Receiver" || strings.Contains(f.Message, "nil") {
		t.Errorf("got %d %s, want 500 InternalFailure without the cause", a.status, a.body)
	}
	if line := s.lastLine(); line.ErrorCode != "InternalFailure" || !strings.HasPrefix(line.Reason, "panic: ") ||
		line.CredentialID != "" || line.RequestID != f.RequestID {
		t.Errorf("the audit line is %+v, want the panic in it", line)
	}
	s.keyring = k
	if a := s.redshiftCall("root", valid()...); a.status != 200 {
		t.Errorf("the call after: got %d %s, want 200", a.status, a.body)
	}
}

// X-Forwarded-For is believed as far as trusted proxies wrote it.
func TestSourceAddress(t *testing.T) {
	s := newServer(t, example(t))
	lo, inner := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")
	rows := []struct {
		name      string
		trusted   []netip.Prefix
		forwarded []string
		want      string
	}{
		{"nobody is trusted", nil, []string{"192.0.2.1"}, "127.0.0.1"},
		{"others are trusted", []netip.Prefix{inner}, []string{"192.0.2.1"}, "127.0.0.1"},
		{"no header", []netip.Prefix{lo}, nil, "127.0.0.1"},
		{"one proxy", []netip.Prefix{lo}, []string{"192.0.2.1"}, "192.0.2.1"},
		{"the client's own invention", []netip.Prefix{lo}, []string{"192.0.2.7, 192.0.2.1"}, "192.0.2.1"},
		{"two proxies", []netip.Prefix{lo, inner}, []string{"192.0.2.7, 192.0.2.1,10.1.2.3"}, "192.0.2.1"},
		{"two lines", []netip.Prefix{lo, inner}, []string{"192.0.2.1", "10.1.2.3"}, "192.0.2.1"},
		{"all are trusted", []netip.Prefix{lo, inner}, []string{"10.9.9.9, 10.1.2.3"}, "10.9.9.9"},
		{"with a port", []netip.Prefix{lo}, []string{"192.0.2.1:4711"}, "192.0.2.1"},
		{"IPv6", []netip.Prefix{lo}, []string{"2001:db8::1"}, "2001:db8::1"},
		{"IPv6 with a port", []netip.Prefix{lo}, []string{"[2001:db8::1]:4711"}, "2001:db8::1"},
		{"IPv4 in IPv6", []netip.Prefix{lo}, []string{"::ffff:192.0.2.1"}, "192.0.2.1"},
		{"nonsense", []netip.Prefix{lo, inner}, []string{"192.0.2.1, unknown, 10.1.2.3"}, "10.1.2.3"},
		{"empty", []netip.Prefix{lo}, []string{""}, "127.0.0.1"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s.proxies = row.trusted
			r := s.signed("root", "redshift", "POST", query("2012-12-01", valid()...))
			r.Header["X-Forwarded-For"] = row.forwarded
			s.do(r)
			if got := s.lastLine().Source.String(); got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
}
