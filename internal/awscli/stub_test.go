package awscli_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// stub is a Redshift endpoint that answers according to a scenario and records the requests.
type stub struct {
	server   *httptest.Server
	mu       sync.Mutex
	requests []string
	headers  []http.Header
}

// scenarios are named sets of answers. An answer is a status and a body.
var scenarios = map[string]func(form url.Values) (int, string){
	"": func(form url.Values) (int, string) {
		switch form.Get("Action") {
		case "GetClusterCredentials":
			return 200, result("GetClusterCredentials", credentialMembers)
		case "GetClusterCredentialsWithIAM":
			return 200, result("GetClusterCredentialsWithIAM", credentialMembers+"<NextRefreshTime>2026-01-02T02:00:00Z</NextRefreshTime>")
		}
		return 200, result("DescribeClusters", "<Clusters>"+fullCluster+"</Clusters>")
	},
	"odd password": answer("GetClusterCredentials", "<DbUser>IAM:alice</DbUser><DbPassword>&lt;p&amp;s'w\"\\/ é漢字😀\u007f&gt; </DbPassword><Expiration>not a time</Expiration>"),
	"no expiry":    answer("GetClusterCredentials", "<DbUser>IAM:alice</DbUser><DbPassword/>"),
	"unknown":      answer("GetClusterCredentials", "<Surprise>x</Surprise><Expiration>2026-01-02T03:04:05Z</Expiration><DbUser>u</DbUser>"),
	"empty":        answer("GetClusterCredentials", ""),
	"wide":         answer("GetClusterCredentials", "<DbUser>IAM:alice</DbUser><DbPassword>"+strings.Repeat("x", 300)+"</DbPassword><Expiration>2026-01-02T03:04:05.678Z</Expiration>"),
	"no wrapper":   plain(200, `<GetClusterCredentialsResponse><DbUser>u</DbUser></GetClusterCredentialsResponse>`),
	"no namespace": plain(200, `<GetClusterCredentialsResponse><GetClusterCredentialsResult><DbUser>u</DbUser></GetClusterCredentialsResult></GetClusterCredentialsResponse>`),
	"not xml":      plain(200, `hello`),
	"half xml":     plain(200, `<GetClusterCredentialsResponse><GetClusterCredentialsResult>`),

	"no clusters":   answer("DescribeClusters", "<Clusters/>"),
	"no list":       answer("DescribeClusters", ""),
	"bare clusters": answer("DescribeClusters", "<Clusters>"+bareCluster("zeta", "dev", 2)+bareCluster("alpha", "prod", 10)+bareCluster("mü", "dev", 1)+"</Clusters>"),
	"mixed clusters": answer("DescribeClusters", "<Clusters>"+bareCluster("zeta", "dev", 2)+fullCluster+
		"<Cluster><ClusterIdentifier>new</ClusterIdentifier><ClusterStatus>creating</ClusterStatus><Tags/></Cluster></Clusters>"),
	"bad port":   answer("DescribeClusters", "<Clusters><Cluster><Endpoint><Port>many</Port></Endpoint></Cluster></Clusters>"),
	"empty port": answer("DescribeClusters", "<Clusters><Cluster><Endpoint><Port></Port></Endpoint></Cluster></Clusters>"),
	"odd values": answer("DescribeClusters", "<Clusters><Cluster><Encrypted>TRUE</Encrypted><NumberOfNodes> 3 </NumberOfNodes><RestoreStatus><CurrentRestoreRateInMegaBytesPerSecond>1e22</CurrentRestoreRateInMegaBytesPerSecond><SnapshotSizeInMegaBytes>123456789012345678901</SnapshotSizeInMegaBytes></RestoreStatus><PendingActions><member>a</member><member/></PendingActions></Cluster></Clusters>"),
	"pages": func(form url.Values) (int, string) {
		pages := map[string]string{
			"":   "<Marker>m2</Marker><Clusters>" + bareCluster("c1", "dev", 1) + bareCluster("c2", "dev", 2) + "</Clusters>",
			"m2": "<Marker>m3</Marker><Clusters>" + bareCluster("c3", "dev", 3) + bareCluster("c4", "dev", 4) + "</Clusters>",
			"m3": "<Clusters>" + bareCluster("c5", "dev", 5) + "</Clusters>",
		}
		return 200, result("DescribeClusters", pages[form.Get("Marker")])
	},
	"same token": answer("DescribeClusters", "<Marker>again</Marker><Clusters>"+bareCluster("c1", "dev", 1)+"</Clusters>"),

	"not found":   failing(404, "Sender", "ClusterNotFound", "Cluster x not found."),
	"denied":      failing(403, "Sender", "AccessDenied", "User: arn:aws:iam::123456789012:user/ana is not authorized to perform: redshift:GetClusterCredentials on resource: arn:aws:redshift:us-east-1:123456789012:dbuser:examplecluster/alice because no identity-based policy allows the redshift:GetClusterCredentials action"),
	"bad token":   failing(403, "Sender", "InvalidClientTokenId", "The security token included in the request is invalid."),
	"unsupported": failing(400, "Sender", "UnsupportedOperation", "no"),
	"ünicode":     failing(400, "Sender", "InvalidParameterValue", "DbUser »é« 漢"),
	"internal":    failing(500, "Receiver", "InternalFailure", "it broke"),
	"html":        plain(502, "<html><body>Bad Gateway</body></html>"),
	"nothing":     plain(503, ""),
	"ec2 style":   plain(400, `<Response><Errors><Error><Code>Odd</Code><Message>old style</Message></Error></Errors><RequestID>r</RequestID></Response>`),
	"no code":     plain(400, `<ErrorResponse><RequestId>r</RequestId></ErrorResponse>`),
	"no message":  plain(400, `<ErrorResponse><Error><Code>Alone</Code></Error></ErrorResponse>`),
	"empty text":  plain(400, `<ErrorResponse><Error><Code>Alone</Code><Message/></Error></ErrorResponse>`),
	"404 html":    plain(404, "<!doctype html><p>nope"),
}

const credentialMembers = "<DbUser>IAM:alice</DbUser><DbPassword>secret-password</DbPassword><Expiration>2026-01-02T03:04:05.678Z</Expiration>"

func result(action, members string) string {
	return fmt.Sprintf(`<%[1]sResponse xmlns="http://redshift.amazonaws.com/doc/2012-12-01/"><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>00000000-0000-0000-0000-000000000001</RequestId></ResponseMetadata></%[1]sResponse>`, action, members)
}

func answer(action, members string) func(url.Values) (int, string) {
	return plain(200, result(action, members))
}

func plain(status int, body string) func(url.Values) (int, string) {
	return func(url.Values) (int, string) { return status, body }
}

func failing(status int, kind, code, message string) func(url.Values) (int, string) {
	return plain(status, fmt.Sprintf(`<ErrorResponse xmlns="http://redshift.amazonaws.com/doc/2012-12-01/"><Error><Type>%s</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>00000000-0000-0000-0000-000000000001</RequestId></ErrorResponse>`, kind, code, message))
}

func bareCluster(id, database string, nodes int) string {
	return fmt.Sprintf(`<Cluster><ClusterIdentifier>%s</ClusterIdentifier><DBName>%s</DBName><Endpoint><Address>%[1]s.example.com</Address><Port>5439</Port></Endpoint><NumberOfNodes>%[3]d</NumberOfNodes><Encrypted>true</Encrypted></Cluster>`, id, database, nodes)
}

const fullCluster = `<Cluster>
  <ClusterIdentifier>examplecluster</ClusterIdentifier><NodeType>ra3.xlplus</NodeType><ClusterStatus>available</ClusterStatus>
  <ClusterAvailabilityStatus>Available</ClusterAvailabilityStatus><MasterUsername>admin</MasterUsername><DBName>dev</DBName>
  <Endpoint><Address>examplecluster.example.com</Address><Port>5439</Port><VpcEndpoints><VpcEndpoint><VpcEndpointId>vpce-1</VpcEndpointId><VpcId>vpc-1</VpcId><NetworkInterfaces><NetworkInterface><NetworkInterfaceId>eni-1</NetworkInterfaceId><PrivateIpAddress>10.0.0.1</PrivateIpAddress></NetworkInterface></NetworkInterfaces></VpcEndpoint></VpcEndpoints></Endpoint>
  <ClusterCreateTime>2026-01-01T00:00:00.000Z</ClusterCreateTime><AutomatedSnapshotRetentionPeriod>1</AutomatedSnapshotRetentionPeriod><ManualSnapshotRetentionPeriod>-1</ManualSnapshotRetentionPeriod>
  <ClusterSecurityGroups/><VpcSecurityGroups><VpcSecurityGroup><VpcSecurityGroupId>sg-1</VpcSecurityGroupId><Status>active</Status></VpcSecurityGroup></VpcSecurityGroups>
  <ClusterParameterGroups><ClusterParameterGroup><ParameterGroupName>default.redshift-1.0</ParameterGroupName><ParameterApplyStatus>in-sync</ParameterApplyStatus><ClusterParameterStatusList><member><ParameterName>require_ssl</ParameterName><ParameterApplyStatus>in-sync</ParameterApplyStatus></member></ClusterParameterStatusList></ClusterParameterGroup></ClusterParameterGroups>
  <PreferredMaintenanceWindow>sun:10:30-sun:11:00</PreferredMaintenanceWindow><PendingModifiedValues/><ClusterVersion>1.0</ClusterVersion><AllowVersionUpgrade>true</AllowVersionUpgrade>
  <NumberOfNodes>2</NumberOfNodes><PubliclyAccessible>false</PubliclyAccessible><Encrypted>true</Encrypted>
  <RestoreStatus><Status>completed</Status><CurrentRestoreRateInMegaBytesPerSecond>12.5</CurrentRestoreRateInMegaBytesPerSecond><SnapshotSizeInMegaBytes>10</SnapshotSizeInMegaBytes></RestoreStatus>
  <ClusterNodes><member><NodeRole>LEADER</NodeRole><PrivateIPAddress>10.0.0.2</PrivateIPAddress></member><member><NodeRole>COMPUTE-0</NodeRole><PublicIPAddress>192.0.2.1</PublicIPAddress></member></ClusterNodes>
  <Tags><Tag><Key>team</Key><Value>data</Value></Tag><Tag><Key>env</Key><Value/></Tag></Tags><EnhancedVpcRouting>false</EnhancedVpcRouting>
  <IamRoles><ClusterIamRole><IamRoleArn>arn:aws:iam::123456789012:role/etl</IamRoleArn><ApplyStatus>in-sync</ApplyStatus></ClusterIamRole></IamRoles>
  <PendingActions><member>reboot</member><member>resize</member></PendingActions><MaintenanceTrackName>current</MaintenanceTrackName>
  <TotalStorageCapacityInMegaBytes>400000</TotalStorageCapacityInMegaBytes><MultiAZ>Disabled</MultiAZ>
</Cluster>`

// newStub starts a stub that the test stops.
func newStub(t *testing.T, scenario string) *stub {
	t.Helper()
	respond, ok := scenarios[scenario]
	if !ok {
		t.Fatalf("no scenario %q", scenario)
	}
	s := new(stub)
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		s.requests = append(s.requests, string(body))
		s.headers = append(s.headers, r.Header)
		s.mu.Unlock()
		form, err := url.ParseQuery(string(body))
		if err != nil {
			t.Error(err)
		}
		status, text := respond(form)
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(s.server.Close)
	return s
}

func (s *stub) received() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.requests...)
}
