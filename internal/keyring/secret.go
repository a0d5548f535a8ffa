package keyring

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a value that must not be disclosed by accident, such as a secret access key or a
// database password. Printing it (fmt with any verb, log/slog, encoding/json, encoding/xml,
// YAML) gives "[redacted]"; only Reveal, which is easy to search for, gives the value. It guards
// against slips, not against code that converts it to a string on purpose. It does not protect
// the keys of a map, which encoding/json writes as they are.
type Secret string

const redacted = "[redacted]"

// Reveal returns the value. Every call of it is a place to review.
func (s Secret) Reveal() string { return string(s) }

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// GoString returns "[redacted]".
func (Secret) GoString() string { return redacted }

// Format writes "[redacted]" for every verb. Without it, fmt would print the value for a verb that
// is wrong for a string, such as %d.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns "[redacted]" to log/slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]" to encoders of XML and YAML.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON returns "[redacted]" as a JSON string.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
