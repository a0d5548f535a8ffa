package awsquery_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/awsquery"
)

const (
	redshiftNamespace = "http://redshift.amazonaws.com/doc/2012-12-01/"
	stsNamespace      = "https://sts.amazonaws.com/doc/2011-06-15/"
	requestID         = "2f1c0b4e-8a53-4d0e-9c35-5b8b9f1d7a11"
)

type logon struct {
	user, password string
	expiration     time.Time
}

func (c logon) EncodeXML(e *awsquery.Encoder) {
	e.String("DbUser", c.user)
	e.String("DbPassword", c.password)
	e.Time("Expiration", c.expiration)
}

var alice = logon{"IAM:alice", `a<b>&"c'`, time.Date(2026, 1, 2, 3, 4, 5, 678_999_999, time.FixedZone("", 3600))}

// clusters is a nested answer with every kind of member.
var clusters = awsquery.ResultFunc(func(e *awsquery.Encoder) {
	awsquery.List(e, "Clusters", "Cluster", []string{"one", "two"}, func(e *awsquery.Encoder, name string) {
		e.String("ClusterIdentifier", name)
		e.Element("Endpoint", func() {
			e.String("Address", "db.example.com")
			e.Int("Port", 5439)
		})
		e.Bool("PubliclyAccessible", false)
		e.Strings("PendingActions", "member", []string{"x", "y"})
		e.Strings("Tags", "Tag", nil)
	})
})

// TestResultsInParallel: answers that are written at the same time share buffers, and none has
// anything of another.
func TestResultsInParallel(t *testing.T) {
	var group sync.WaitGroup
	for i := range 8 {
		result := alice
		result.user = strings.Repeat(string(rune('a'+i)), 900*(1+i))
		want := httptest.NewRecorder()
		awsquery.WriteResult(want, redshiftNamespace, "GetClusterCredentials", requestID, result)
		if n := strings.Count(want.Body.String(), result.user); n != 1 {
			t.Fatalf("the answer has the user %d times", n)
		}
		group.Go(func() {
			for range 200 {
				w := httptest.NewRecorder()
				awsquery.WriteResult(w, redshiftNamespace, "GetClusterCredentials", requestID, result)
				if w.Body.String() != want.Body.String() {
					t.Errorf("body =\n%s\nwant\n%s", w.Body, want.Body)
					return
				}
			}
		})
	}
	group.Wait()
}

func TestWriteResult(t *testing.T) {
	const head, tail = `Response xmlns="` + redshiftNamespace + `">`, `<ResponseMetadata><RequestId>` + requestID + `</RequestId></ResponseMetadata>`
	for name, row := range map[string]struct {
		action string
		result awsquery.Result
		want   string
	}{
		"credentials": {"GetClusterCredentials", alice, `<GetClusterCredentials` + head + `<GetClusterCredentialsResult>` +
			`<DbUser>IAM:alice</DbUser><DbPassword>a&lt;b&gt;&amp;&#34;c'</DbPassword><Expiration>2026-01-02T02:04:05.678Z</Expiration>` +
			`</GetClusterCredentialsResult>` + tail + `</GetClusterCredentialsResponse>`},
		"nested": {"DescribeClusters", clusters, `<DescribeClusters` + head + `<DescribeClustersResult><Clusters>` +
			`<Cluster><ClusterIdentifier>one</ClusterIdentifier><Endpoint><Address>db.example.com</Address><Port>5439</Port></Endpoint>` +
			`<PubliclyAccessible>false</PubliclyAccessible><PendingActions><member>x</member><member>y</member></PendingActions><Tags></Tags></Cluster>` +
			`<Cluster><ClusterIdentifier>two</ClusterIdentifier><Endpoint><Address>db.example.com</Address><Port>5439</Port></Endpoint>` +
			`<PubliclyAccessible>false</PubliclyAccessible><PendingActions><member>x</member><member>y</member></PendingActions><Tags></Tags></Cluster>` +
			`</Clusters></DescribeClustersResult>` + tail + `</DescribeClustersResponse>`},
		"empty":     {"A", awsquery.ResultFunc(func(*awsquery.Encoder) {}), `<A` + head + `<AResult></AResult>` + tail + `</AResponse>`},
		"no output": {"DeleteUser", nil, `<DeleteUser` + head + tail + `</DeleteUserResponse>`},
	} {
		w := httptest.NewRecorder()
		awsquery.WriteResult(w, redshiftNamespace, row.action, requestID, row.result)
		if got := w.Body.String(); got != row.want {
			t.Errorf("%s: body =\n%s\nwant\n%s", name, got, row.want)
		}
		checkHead(t, w, http.StatusOK)
	}
}

func checkHead(t *testing.T, w *httptest.ResponseRecorder, status int) {
	t.Helper()
	h := w.Result().Header
	for name, want := range map[string]string{
		"Content-Type":     "text/xml",
		"x-amzn-RequestId": requestID,
		"Cache-Control":    "no-store",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if w.Code != status {
		t.Errorf("status = %d, want %d", w.Code, status)
	}
}

func TestWriteError(t *testing.T) {
	for _, row := range []struct {
		err    *awsquery.Error
		status int
		want   string
	}{
		{&awsquery.Error{Code: "ClusterNotFound", Status: 404, Message: "Cluster <x> not found.", Cause: errors.New("secret")}, 404,
			`<Type>Sender</Type><Code>ClusterNotFound</Code><Message>Cluster &lt;x&gt; not found.</Message>`},
		{&awsquery.Error{Code: "InternalFailure", Status: 500}, 500,
			`<Type>Receiver</Type><Code>InternalFailure</Code><Message></Message>`},
		{&awsquery.Error{Code: "Odd", Status: 0}, 500, `<Type>Receiver</Type><Code>Odd</Code><Message></Message>`},
		{&awsquery.Error{Code: "Odd", Status: 200}, 500, `<Type>Receiver</Type><Code>Odd</Code><Message></Message>`},
	} {
		w := httptest.NewRecorder()
		awsquery.WriteError(w, stsNamespace, requestID, row.err)
		want := `<ErrorResponse xmlns="` + stsNamespace + `"><Error>` + row.want + `</Error><RequestId>` + requestID + `</RequestId></ErrorResponse>`
		if got := w.Body.String(); got != want {
			t.Errorf("body =\n%s\nwant\n%s", got, want)
		}
		checkHead(t, w, row.status)
	}
	cause := errors.New("cause")
	err := &awsquery.Error{Code: "Code", Status: 400, Message: "Message.", Cause: cause}
	if got := err.Error(); got != "Code: Message." || !errors.Is(err, cause) {
		t.Errorf("Error() = %q", got)
	}
	wantError(t, "Missing", awsquery.Missing("DbUser"), "MissingParameter", 400, "DbUser")
}

// TestText writes every character there is and reads it back.
func TestText(t *testing.T) {
	decode := func(t *testing.T, text string) string {
		w := httptest.NewRecorder()
		awsquery.WriteError(w, text, requestID, &awsquery.Error{Code: "C", Status: 400, Message: text})
		var document struct {
			Namespace string `xml:"xmlns,attr"`
			Message   string `xml:"Error>Message"`
		}
		if err := xml.Unmarshal(w.Body.Bytes(), &document); err != nil {
			t.Fatalf("%q: %v", w.Body, err)
		}
		if document.Namespace != document.Message {
			t.Errorf("attribute %q, text %q", document.Namespace, document.Message)
		}
		return document.Message
	}
	for block := rune(0); block <= utf8.MaxRune; block += 0x1000 {
		var text, want strings.Builder
		for c := block; c < block+0x1000; c++ {
			text.WriteRune(c) // a surrogate becomes U+FFFD here
			if c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0xFFFE || c == 0xFFFF {
				want.WriteRune(utf8.RuneError)
			} else {
				want.WriteRune(c)
			}
		}
		if decode(t, text.String()) != want.String() {
			t.Errorf("characters from %U on are not read back as written", block)
		}
	}
	for text, want := range map[string]string{
		"\xff":             "\uFFFD",
		"a\xc3":            "a\uFFFD",
		"\xed\xa0\x80":     "\uFFFD\uFFFD\uFFFD",
		"]]>":              "]]>",
		"<!--&amp;--><x/>": "<!--&amp;--><x/>",
		" a  b ":           " a  b ",
		"\r\n":             "\r\n",
		"":                 "",
	} {
		if got := decode(t, text); got != want {
			t.Errorf("%q = %q, want %q", text, got, want)
		}
	}
}

// TestAsEncodingXML: the standard library can parse the answer, and finds every element in
// the namespace.
func TestAsEncodingXML(t *testing.T) {
	w := httptest.NewRecorder()
	awsquery.WriteResult(w, redshiftNamespace, "DescribeClusters", requestID, clusters)
	decoder := xml.NewDecoder(bytes.NewReader(w.Body.Bytes()))
	depth, deepest := 0, 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			if token.Name.Space != redshiftNamespace {
				t.Errorf("%s is in namespace %q", token.Name.Local, token.Name.Space)
			}
			depth++
			deepest = max(deepest, depth)
		case xml.EndElement:
			depth--
		}
	}
	if deepest != 6 {
		t.Errorf("deepest element at %d, want 6", deepest)
	}
}

// discard is a ResponseWriter that costs nothing.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

func BenchmarkWriteResult(b *testing.B) {
	result := logon{"IAM:alice", strings.Repeat("eyJhbGciOiJFZERTQSJ9", 20), alice.expiration}
	for name, row := range map[string]struct {
		action string
		result awsquery.Result
	}{"credentials": {"GetClusterCredentials", result}, "clusters": {"DescribeClusters", clusters}} {
		b.Run(name, func(b *testing.B) {
			w := discard{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				awsquery.WriteResult(w, redshiftNamespace, row.action, requestID, row.result)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	r, body := post("Action=GetClusterCredentials&Version=2012-12-01&DbUser=alice&DbName=dev&ClusterIdentifier=examplecluster" +
		"&DurationSeconds=900&AutoCreate=true&DbGroups.DbGroup.1=analysts&DbGroups.DbGroup.2=finance")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := awsquery.Parse(r, body); err != nil {
			b.Fatal(err)
		}
	}
}
