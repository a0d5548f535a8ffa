// Package envtest keeps the settings of whoever runs the tests out of the tests.
package envtest

import (
	"os"
	"strings"
)

// Clear removes the environment variables that the AWS SDKs, PostgreSQL's clients, the tracing,
// coloured output, what opens a browser and what tells the service manager follow. Call it before the
// first test.
func Clear() {
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		for _, prefix := range []string{"AWS_", "PG", "OTEL_", "NO_COLOR", "BROWSER", "NOTIFY_SOCKET"} {
			if strings.HasPrefix(name, prefix) {
				_ = os.Unsetenv(name)
			}
		}
	}
}
