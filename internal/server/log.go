package server

import (
	"context"
	"io"
	"log/slog"
	"sync"

	"github.com/daypass/daypass/internal/keyring"
)

// LogOptions say what a log has. The zero value is lines of key=value, from INFO up.
type LogOptions struct {
	Level slog.Level
	JSON  bool
	// Journal puts the priority in front of each line, as systemd's journal expects it on
	// standard error (sd-daemon(3)).
	Journal bool
}

// NewLog returns a log that writes to w. Database passwords are redacted, even where a client
// sent one in place of a name.
func NewLog(w io.Writer, o LogOptions) *slog.Logger {
	options := &slog.HandlerOptions{Level: o.Level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch v := a.Value.Any().(type) {
		case string:
			a.Value = slog.StringValue(keyring.Redact(v))
		case error:
			a.Value = slog.StringValue(keyring.Redact(v.Error()))
		}
		return a
	}}
	out := &journalLines{w: w}
	if o.Journal {
		w = out
	}
	var handler slog.Handler = slog.NewTextHandler(w, options)
	if o.JSON {
		handler = slog.NewJSONHandler(w, options)
	}
	if o.Journal {
		handler = journalHandler{handler, out}
	}
	return slog.New(handler)
}

// journalHandler writes lines with priorities. Handler writes each record to lines with one
// call of Write.
type journalHandler struct {
	slog.Handler
	lines *journalLines
}

func (h journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.lines.mu.Lock()
	defer h.lines.mu.Unlock()
	switch {
	case r.Level >= slog.LevelError:
		h.lines.priority = "<3>"
	case r.Level >= slog.LevelWarn:
		h.lines.priority = "<4>"
	case r.Level >= slog.LevelInfo:
		h.lines.priority = "<6>"
	default:
		h.lines.priority = "<7>"
	}
	return h.Handler.Handle(ctx, r)
}

func (h journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return journalHandler{h.Handler.WithAttrs(attrs), h.lines}
}

func (h journalHandler) WithGroup(name string) slog.Handler {
	return journalHandler{h.Handler.WithGroup(name), h.lines}
}

// journalLines puts the priority of a record in front of its line.
type journalLines struct {
	w io.Writer

	mu       sync.Mutex // held while a record is written; guards priority
	priority string
}

func (l *journalLines) Write(line []byte) (int, error) {
	if _, err := l.w.Write(append([]byte(l.priority), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
