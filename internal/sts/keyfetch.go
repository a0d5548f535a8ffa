package sts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"github.com/daypass/daypass/internal/filemode"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

const (
	// fetchTimeout is for discovery and keys together.
	fetchTimeout = 5 * time.Second

	maxKeyDocument = 1 << 20
	// maxCAFile is what the configuration accepts.
	maxCAFile    = 4 << 20
	maxKeyHeader = 64 << 10
)

// fetch discovers the provider and reads its keys. It repeats the discovery each time, because
// the keys may have moved. It does not end with the call that started it, because other calls
// wait for the result.
func (s *keySource) fetch(ctx context.Context, now time.Time) (*keySet, error) {
	client, err := ProviderClient(s.caFile)
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, client), s.issuer)
	if err != nil {
		return nil, err
	}
	var document struct {
		JWKS string `json:"jwks_uri"`
	}
	if err := provider.Claims(&document); err != nil {
		return nil, err
	}
	if strings.HasPrefix(s.issuer, "https://") && !strings.HasPrefix(document.JWKS, "https://") {
		return nil, errors.New("jwks_uri is not an https URL")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, document.JWKS, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("reading keys: %s", response.Status)
	}
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	keys, err := parseKeys(data)
	if err != nil {
		return nil, err
	}
	return &keySet{keys: keys, read: now}, nil
}

// ProviderClient returns a client for requests to an identity provider. It trusts the
// system's certificate authorities, and those in caFile unless caFile is empty. It follows
// no redirect away from TLS, and bounds what it reads.
func ProviderClient(caFile string) (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = maxKeyHeader
	if caFile != "" {
		pem, _, err := filemode.ReadRegular(caFile, maxCAFile)
		if err != nil {
			return nil, err
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate", caFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{
		Transport: bounded{transport},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) >= 3 || via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
				return errors.New("redirected too often or away from https")
			}
			return nil
		},
	}, nil
}

// bounded cuts off bodies that are too long.
type bounded struct{ *http.Transport }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.Transport.RoundTrip(r)
	if err == nil {
		response.Body = http.MaxBytesReader(nil, response.Body, maxKeyDocument)
	}
	return response, err
}
