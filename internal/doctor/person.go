package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Person checks what someone needs in order to call the API and log on.
type Person struct {
	Now   func() time.Time
	Built time.Time // as in Operator
	// Find finds the endpoint, region and access key as every command does.
	Find func(ctx context.Context) (Access, error)
	// CAFile is the CA for the gateway's certificate. If it is empty, the system's CAs are used.
	CAFile string
}

// Access has the settings that a person uses to call the API.
type Access struct {
	Endpoint    string // URL
	Plaintext   bool   // the URL leads to another machine and has no TLS
	Credentials aws.CredentialsProvider
	HTTP        aws.HTTPClient
	// Call requests the list of all clusters, as connect does.
	Call func(ctx context.Context) ([]Cluster, error)
	// Allowed reports whether an error of Call means that the API recognized the caller and
	// refused the action.
	Allowed func(err error) (refused bool)
}

// Cluster is a cluster that the API listed.
type Cluster struct {
	Identifier, Host string
	Port             int
}

// Run runs all checks, from the configuration to the gateway's certificate. It skips checks that
// depend on one that failed.
func (p *Person) Run(ctx context.Context, mask *Mask, r *Report) {
	r.built(p.Built, p.Now())
	access, err := p.Find(ctx)
	if err != nil {
		r.fail("configuration", "set endpoint_url, region and, for a private CA, ca_bundle in the profile of ~/.aws/config (docs/clients.md)", "%v", err)
		return
	}
	if u, err := url.Parse(access.Endpoint); err == nil {
		mask.Host(u.Hostname())
	}
	r.ok("configuration", "the API is at %s", access.Endpoint)
	if access.Plaintext {
		r.warn("endpoint", "use its https:// URL", "%s is on another machine and has no TLS: passwords would cross the network in clear text", access.Endpoint)
	}
	signs := p.accessKey(ctx, mask, r, access)
	if !p.endpoint(ctx, r, access) || !signs {
		return
	}
	clusters, err := access.Call(ctx)
	switch {
	case err == nil:
		r.ok("access key", "the API takes it; clusters that it lists: %d", len(clusters))
	case access.Allowed(err):
		r.warn("access key", "have redshift:DescribeClusters allowed, or pass --host and --port to daypass connect", "the API takes it, and does not let it ask where clusters are")
	default:
		r.fail("access key", "ask the operator of the server; its audit log has the reason", "the API refuses it: %v", err)
	}
	asked := map[string]bool{}
	for _, cluster := range clusters {
		mask.Host(cluster.Host)
		address := net.JoinHostPort(cluster.Host, strconv.Itoa(cluster.Port))
		if cluster.Host == "" || asked[address] {
			continue
		}
		asked[address] = true
		p.gateway(ctx, r, cluster.Host, address)
	}
	p.client(r)
}

// accessKey finds out where the access key comes from and when it expires.
func (p *Person) accessKey(ctx context.Context, mask *Mask, r *Report, access Access) bool {
	const about, do = "access key", "sign in, or make a profile with an access key (docs/clients.md)"
	if access.Credentials == nil {
		r.fail(about, do, "there is none")
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	found, err := access.Credentials.Retrieve(ctx)
	if err != nil {
		r.fail(about, do, "%v", err)
		return false
	}
	mask.Secret(found.SecretAccessKey)
	mask.Secret(found.SessionToken)
	switch {
	case found.CanExpire && !found.Expires.After(p.Now()):
		r.fail(about, "sign in again, or assume the role again", "it expired on %s", found.Expires.UTC().Format(time.RFC3339))
		return false
	case found.CanExpire:
		r.ok(about, "comes from %s and expires on %s", found.Source, found.Expires.UTC().Format(time.RFC3339))
	default:
		r.ok(about, "comes from %s and does not expire", found.Source)
	}
	return true
}

// endpoint calls the API's probe and verifies the certificate as every call does.
func (p *Person) endpoint(ctx context.Context, r *Report, access Access) bool {
	const about = "endpoint"
	u, err := url.Parse(access.Endpoint)
	if err != nil {
		r.fail(about, "write https://HOST:PORT", "the endpoint is not a URL")
		return false
	}
	u.Path, u.RawQuery, u.Fragment = "/readyz", "", ""
	client, ok := access.HTTP.(*http.Client)
	if !ok {
		client = &http.Client{Transport: transportOf(access.HTTP)}
	}
	before := p.Now()
	got, err := probe(ctx, u.String(), client)
	if err != nil {
		r.fail(about, whatToDo(err), "%s cannot be reached: %v", u.Host, err)
		return false
	}
	if !got.date.IsZero() && got.status < 500 {
		r.clock("the API", got.date, before.Add(p.Now().Sub(before)/2))
	}
	if got.leaf != nil {
		r.expiry("the API's certificate", "tell the operator of the server", got.leaf.NotBefore, got.leaf.NotAfter, p.Now())
	}
	switch got.status {
	case http.StatusOK:
		r.ok(about, "%s answers and is ready", u.Host)
	case http.StatusServiceUnavailable:
		r.fail(about, "wait, or tell the operator of the server", "%s answers that it is not ready", u.Host)
	default:
		r.fail(about, "ask the operator of the server for the right URL", "%s answers %d to /readyz: it is not a Daypass server, or a proxy is in between", u.Host, got.status)
		return false
	}
	return true
}

// transportOf returns an SDK client as a transport.
func transportOf(client aws.HTTPClient) http.RoundTripper {
	if client == nil {
		return http.DefaultTransport
	}
	return roundTripper{client}
}

type roundTripper struct{ client aws.HTTPClient }

func (t roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return t.client.Do(r) }

// whatToDo returns the remedy for an endpoint that cannot be reached.
func whatToDo(err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "x509") || strings.Contains(text, "certificate"):
		return "set ca_bundle of the profile, or AWS_CA_BUNDLE, to the CA of the server's certificate; the operator of the server has it"
	case strings.Contains(text, "no such host"):
		return "look at the name in endpoint_url; a VPN may be needed to resolve it"
	case strings.Contains(text, "first record does not look like a TLS handshake"):
		return "the port does not speak TLS: look at endpoint_url"
	}
	return "look at endpoint_url, the network (a VPN?) and whether the server runs"
}

// gateway does what a client does before it sends a password: it asks for TLS and verifies the
// certificate.
func (p *Person) gateway(ctx context.Context, r *Report, host, address string) {
	const about = "gateway"
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := askForTLS(ctx, address)
	switch {
	case errors.Is(err, errNoTLS):
		r.fail(about, "ask the operator of the server for the right address", "%s: %v", address, err)
		return
	case err != nil:
		r.fail(about, "look at the network (a firewall, a VPN?)", "%s cannot be reached: %v", address, err)
		return
	}
	defer conn.Close()
	roots, source, err := p.roots()
	if err != nil {
		r.fail(about, "copy data/tls/ca.crt of the server again", "the CA file of the gateway cannot be used: %v", err)
		return
	}
	secured := tls.Client(conn, &tls.Config{ServerName: host, RootCAs: roots, NextProtos: []string{"postgresql"}})
	err = secured.HandshakeContext(ctx)
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil:
		leaf := secured.ConnectionState().PeerCertificates[0]
		r.expiry("the gateway's certificate", "tell the operator of the server", leaf.NotBefore, leaf.NotAfter, p.Now())
		r.ok(about, "%s answers, and its certificate is checked with %s", address, source)
	case errors.As(err, &unknown) && p.CAFile == "":
		r.fail(about, "get data/tls/ca.crt from the operator of the server, and set DAYPASS_SSLROOTCERT to it (docs/clients.md)", "%s has a certificate that none of %s has signed", address, source)
	default:
		r.fail(about, "get data/tls/ca.crt again from the operator of the server; do not log on until this is right", "the certificate of %s cannot be checked with %s: %v", address, source, err)
	}
}

func (p *Person) roots() (roots *x509.CertPool, source string, err error) {
	if p.CAFile == "" {
		return nil, "the system's authorities", nil
	}
	data, err := os.ReadFile(p.CAFile)
	if err != nil {
		return nil, "", err
	}
	roots = x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, "", errors.New("it has no certificate")
	}
	return roots, "the CA file", nil
}

// client looks for psql, which connect starts.
func (p *Person) client(r *Report) {
	if _, err := exec.LookPath("psql"); err != nil {
		r.warn("client", "install it (Debian: postgresql-client), or print the connection for another client: daypass connect --print", "psql is not installed, which daypass connect starts")
		return
	}
	r.ok("client", "psql is installed")
}
