package config

import (
	"errors"
	"fmt"
	"strconv"
)

// MayBecome says what of a new configuration cannot be put in force while the
// server runs.
func (c *Config) MayBecome(next *Config) error {
	for _, row := range []struct{ key, old, new string }{
		{"account", c.Account, next.Account},
		{"region", c.Region, next.Region},
		{"data", c.Data, next.Data},
		{"api.listen", c.API.Listen, next.API.Listen},
		{"gateway.listen", c.Gateway.Listen, next.Gateway.Listen},
		{"admin.listen", c.Admin.Listen, next.Admin.Listen},
		{"admin.pprof", strconv.FormatBool(c.Admin.Profiles), strconv.FormatBool(next.Admin.Profiles)},
		{"tracing.endpoint", c.Tracing.Endpoint, next.Tracing.Endpoint},
		{"registry", c.Registry.String(), next.Registry.String()},
		{"api.limits.connections", strconv.Itoa(c.API.Limits.Connections), strconv.Itoa(next.API.Limits.Connections)},
		{"api.limits.per_address", strconv.Itoa(c.API.Limits.PerAddress), strconv.Itoa(next.API.Limits.PerAddress)},
	} {
		if row.old != row.new {
			return next.Fault(row.key, fmt.Errorf("cannot change from %q to %q while the server runs: restart it", row.old, row.new))
		}
	}
	if c.API.TLS.Given() != next.API.TLS.Given() {
		return next.Fault("api.tls", errors.New("cannot be added or taken away while the server runs: restart it"))
	}
	if c.Registry.password() != next.Registry.password() {
		return next.Fault("registry.etcd.username", errors.New("its password cannot change while the server runs: restart it"))
	}
	return nil
}
