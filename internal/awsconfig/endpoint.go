package awsconfig

import (
	"context"
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
)

// findEndpoint returns the endpoint of the first of services that has one, the endpoint for all
// services, or "". In the AWS CLI's order it reads AWS_ENDPOINT_URL_<SERVICE>, AWS_ENDPOINT_URL,
// the services section of the profile, and the profile's endpoint_url. As in the AWS CLI an
// empty value counts as not set. The SDK differs: with an empty AWS_ENDPOINT_URL it would call
// Amazon.
func findEndpoint(ctx context.Context, cfg aws.Config, getenv func(string) string, services ...string) (string, error) {
	if ignore, _, err := config.GetIgnoreConfiguredEndpoints(ctx, cfg.ConfigSources); ignore || err != nil {
		return "", err
	}
	for _, service := range services {
		if found := getenv("AWS_ENDPOINT_URL_" + strings.ToUpper(service)); found != "" {
			return found, nil
		}
	}
	if found := getenv("AWS_ENDPOINT_URL"); found != "" {
		return found, nil
	}
	for _, source := range cfg.ConfigSources {
		shared, ok := source.(config.SharedConfig)
		if !ok {
			continue
		}
		section := shared.Services.ServiceValues
		if shared.ServicesSectionName != "" && len(section) == 0 {
			return "", fail(ExitConfiguration, `The profile is configured to use the services section but the "%s" services configuration does not exist.`, shared.ServicesSectionName)
		}
		for _, service := range services {
			if found := section[service]["endpoint_url"]; found != "" {
				return found, nil
			}
		}
		return shared.BaseEndpoint, nil
	}
	return "", nil
}

// ServiceEndpoint returns the services section that the profile names, or "", and the endpoint of
// a service in it.
func (f Found) ServiceEndpoint(service string) (section, endpoint string) {
	for _, source := range f.SDK.ConfigSources {
		if shared, ok := source.(config.SharedConfig); ok {
			return shared.ServicesSectionName, shared.Services.ServiceValues[service]["endpoint_url"]
		}
	}
	return "", ""
}

// hostName matches names that the AWS CLI accepts as host names.
var hostName = regexp.MustCompile(`^(?i:[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)(\.(?i:[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?))*\.?$`)

// Plaintext reports whether an endpoint's URL leads to another machine and has no TLS.
func Plaintext(endpoint string) bool {
	u, err := parseEndpoint(endpoint)
	if err != nil {
		return true
	}
	ip, _ := netip.ParseAddr(u.Hostname())
	return u.Scheme != "https" && u.Hostname() != "localhost" && !ip.IsLoopback()
}

// parseEndpoint reads the URL of an endpoint.
func parseEndpoint(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || len(u.Hostname()) > 255 || !hostName.MatchString(u.Hostname()) && !strings.HasPrefix(u.Host, "[") {
		return nil, fail(ExitConfiguration, "Invalid endpoint: %s", text)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fail(ExitConfiguration, "Invalid endpoint: %s: its scheme is neither http nor https", text)
	}
	return u, nil
}

// CheckScheme refuses a URL without a scheme, such as "localhost:8440".
func CheckScheme(url string) error {
	scheme, _, found := strings.Cut(url, "://")
	if !found || scheme == "" {
		return fail(ExitUsage, `Bad value for --endpoint-url "%s": scheme is missing.  Must be of the form http://<hostname>/ or https://<hostname>/`, url)
	}
	return nil
}
