package sigv4_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/daypass/daypass/internal/sigv4"
)

// A server verifies calls that the official SDK signs.
func ExampleVerifier_Verify() {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	verifier := &sigv4.Verifier{
		Region:   "us-east-1",
		Services: []string{"redshift"},
		Now:      func() time.Time { return now },
	}
	lookup := func(accessKeyID, sessionToken string) (string, error) {
		if accessKeyID != "AKIAIOSFODNN7EXAMPLE" || sessionToken != "" {
			return "", sigv4.ErrUnknownKey
		}
		return "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", nil
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			fmt.Fprint(w, err)
			return
		}
		signature, err := verifier.Verify(r, body, lookup)
		if err != nil {
			fmt.Fprint(w, "refused: ", err)
			return
		}
		fmt.Fprintf(w, "signed by %s for %s in %s", signature.AccessKeyID, signature.Service, signature.Region)
	}))
	defer server.Close()

	call := func(secret string, at time.Time) {
		const body = "Action=DescribeClusters&Version=2012-12-01"
		request, err := http.NewRequest("POST", server.URL, strings.NewReader(body))
		if err != nil {
			fmt.Println(err)
			return
		}
		hash := sha256.Sum256([]byte(body))
		key := aws.Credentials{AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: secret}
		if err := v4.NewSigner().SignHTTP(request.Context(), key, request, hex.EncodeToString(hash[:]), "redshift", "us-east-1", at); err != nil {
			fmt.Println(err)
			return
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer response.Body.Close()
		answer, err := io.ReadAll(response.Body)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(string(answer))
	}
	call("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", now)
	call("another secret", now)
	call("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", now.Add(-time.Hour))
	// Output:
	// signed by AKIAIOSFODNN7EXAMPLE for redshift in us-east-1
	// refused: signature does not match
	// refused: signature is expired
}
