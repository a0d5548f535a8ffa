package main

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// accessKey is an access key that signs requests.
type accessKey struct{ id, secret string }

// endpoint is an API that answers signed calls.
type endpoint struct {
	address string // host:port
	// keys sign the calls in turn.
	keys []accessKey
}

// issueForm asks for a credential that needs three decisions and has two groups: four checks of
// five permissions.
func issueForm(user string) string {
	return url.Values{
		"Action": {"GetClusterCredentials"}, "Version": {"2012-12-01"}, "DbUser": {user}, "DbName": {"bench"},
		"ClusterIdentifier": {"bench"}, "DbGroups.DbGroup.1": {"one"}, "DbGroups.DbGroup.2": {"two"}, "AutoCreate": {"true"},
	}.Encode()
}

// requests sends calls, each signed anew, over connections that stay open if the server allows it.
func requests(o options, e endpoint, body string) func(context.Context, cpuTime) (measurement, error) {
	return func(ctx context.Context, spent cpuTime) (measurement, error) {
		signers := e.signers()
		var callers [clients]*caller
		for i := range callers {
			callers[i] = &caller{address: e.address, signers: signers, next: i, step: clients}
		}
		return closedLoop(ctx, o, clients, 0, spent, func(i int) (client, error) {
			return client{work: func() (time.Duration, error) {
				_, err := callers[i].call(body)
				return 0, err
			}, end: callers[i].close}, nil
		})
	}
}

// caller is one client of an API.
type caller struct {
	address string
	signers []*signer
	next    int // index of the next signer
	step    int
	conn    net.Conn
	reader  *bufio.Reader
}

func (e endpoint) caller() *caller { return &caller{address: e.address, signers: e.signers()} }

// signers returns a signer for each key. Callers may share them.
func (e endpoint) signers() []*signer {
	list := make([]*signer, len(e.keys))
	for i, key := range e.keys {
		list[i] = newSigner(e.address, key, "redshift")
	}
	return list
}

func (c *caller) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// call sends a form and returns the body of the answer.
func (c *caller) call(body string) ([]byte, error) {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.address)
		if err != nil {
			return nil, err
		}
		c.conn, c.reader = conn, bufio.NewReader(conn)
	}
	signer := c.signers[c.next%len(c.signers)]
	c.next += c.step
	if _, err := c.conn.Write(signer.request(body)); err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", response.Status, text)
	}
	if response.Close {
		c.close()
	}
	return text, err
}

// issue gets a credential of the cluster bench that lasts an hour.
func issue(e endpoint, user string, autoCreate bool) (login, error) {
	return issueOn(e, "bench", user, autoCreate)
}

// issueOn is issue for another cluster.
func issueOn(e endpoint, cluster, user string, autoCreate bool) (login, error) {
	c := endpoint{e.address, e.keys[:1]}.caller()
	defer c.close()
	form := url.Values{"Action": {"GetClusterCredentials"}, "Version": {"2012-12-01"}, "DbUser": {user}, "DbName": {"bench"},
		"ClusterIdentifier": {cluster}, "DurationSeconds": {"3600"}}
	if autoCreate {
		form.Set("AutoCreate", "true")
	}
	text, err := c.call(form.Encode())
	if err != nil {
		return login{}, err
	}
	var answer struct {
		User     string `xml:"GetClusterCredentialsResult>DbUser"`
		Password string `xml:"GetClusterCredentialsResult>DbPassword"`
	}
	if err := xml.Unmarshal(text, &answer); err != nil || answer.Password == "" {
		return login{}, fmt.Errorf("no credential: %s", text)
	}
	return login{user: answer.User, password: answer.Password, database: "bench"}, nil
}

// signer writes signed requests. It keeps the signing key of the day, so that the load generator
// uses little CPU compared with the server. A signer is immutable.
type signer struct {
	host, service string
	accessKey     accessKey
	day           string
	key           []byte
}

func newSigner(host string, key accessKey, service string) *signer {
	s := &signer{host: host, accessKey: key, service: service, day: time.Now().UTC().Format("20060102")}
	s.key = s.derive(s.day)
	return s
}

func (s *signer) derive(day string) []byte {
	key := []byte("AWS4" + s.accessKey.secret)
	for _, part := range []string{day, "us-east-1", s.service, "aws4_request"} {
		key = mac(key, part)
	}
	return key
}

func (s *signer) request(body string) []byte {
	now := time.Now().UTC()
	stamp, day := now.Format("20060102T150405Z"), now.Format("20060102")
	key := s.key
	if s.day != day { // midnight has passed
		key = s.derive(day)
	}
	const contentType = "application/x-www-form-urlencoded; charset=utf-8"
	canonical := "POST\n/\n\ncontent-type:" + contentType + "\nhost:" + s.host + "\nx-amz-date:" + stamp + "\n\ncontent-type;host;x-amz-date\n" + hash(body)
	scope := day + "/us-east-1/" + s.service + "/aws4_request"
	signature := hex.EncodeToString(mac(key, "AWS4-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+hash(canonical)))
	return []byte("POST / HTTP/1.1\r\nHost: " + s.host + "\r\nContent-Type: " + contentType + "\r\nX-Amz-Date: " + stamp +
		"\r\nAuthorization: AWS4-HMAC-SHA256 Credential=" + s.accessKey.id + "/" + scope + ", SignedHeaders=content-type;host;x-amz-date, Signature=" + signature +
		"\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
