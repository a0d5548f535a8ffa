package server

import (
	"io"
	"log/slog"

	"github.com/daypass/daypass/internal/keyring"
)

// NewLog returns a log that writes lines of key=value, or JSON, to w. Database passwords are
// redacted, even where a client sent one in place of a name.
func NewLog(w io.Writer, level slog.Level, asJSON bool) *slog.Logger {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch v := a.Value.Any().(type) {
		case string:
			a.Value = slog.StringValue(keyring.Redact(v))
		case error:
			a.Value = slog.StringValue(keyring.Redact(v.Error()))
		}
		return a
	}}
	if asJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
