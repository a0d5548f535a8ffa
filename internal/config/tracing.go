package config

import "net/url"

// Tracing configures where traces are sent. If it is empty, OpenTelemetry's environment
// variables decide.
type Tracing struct{ Endpoint string }

func (t *Tracing) read(s *section) {
	t.Endpoint = s.text("endpoint")
	u, err := url.Parse(t.Endpoint)
	if t.Endpoint != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		s.errorf("endpoint", "is %q, want the URL of an OTLP/HTTP receiver, such as http://127.0.0.1:4318", t.Endpoint)
	}
}
