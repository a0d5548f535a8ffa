package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// maxRecent bounds the bytes that Recent reads, and recentDays the files.
const (
	maxRecent  = 16 << 20
	recentDays = 8
	chunkSize  = 256 << 10
)

// Line is a line of the log, read back. Its texts are as written: long ones are shortened, and
// some contain what callers sent.
type Line struct {
	EventTime    time.Time
	EventSource  string
	EventName    string
	SourceIP     string `json:"sourceIPAddress"`
	UserAgent    string
	ErrorCode    string
	ErrorMessage string
	RequestID    string
	FromConsole  string `json:"sessionCredentialFromConsole"`
	UserIdentity struct{ ARN string }
	// Request and Response are the fields that are texts, numbers or lists of texts.
	Request  map[string]any `json:"requestParameters"`
	Response map[string]any `json:"responseElements"`
	More     struct {
		CredentialID string
		SessionID    string
		Reason       string
		Cluster      string
		DBUser       string
		Database     string
		DBGroups     []string
		Outcome      string
		DurationMS   float64
		Decisions    []Decision
	} `json:"additionalEventData"`
}

// Recent returns the latest lines of this server's log about a principal, newest first: those
// whose identity has exactly this ARN and that keep accepts. It returns no more than most of
// them, and reads a bounded part of the log. since is the time back to which it has read, or zero
// if it has found enough lines or read the whole log. Once ctx is done it returns ctx's error.
func (w *Writer) Recent(ctx context.Context, arn string, most int, keep func(*Line) bool) (lines []Line, since time.Time, err error) {
	left := int64(maxRecent)
	day := w.now().UTC()
	var last []byte // the line that was read last
	oldest := w.now().UTC()
	for range recentDays {
		path := filepath.Join(w.dir, day.Format(time.DateOnly)+".jsonl")
		whole, err := backwards(ctx, path, &left, func(line []byte) bool {
			var found Line
			last = line
			// Most lines are about others. The ARN can also be in a text that a caller sent, so
			// the field decides.
			if !bytes.Contains(line, []byte(arn)) || json.Unmarshal(line, &found) != nil {
				return true
			}
			oldest = found.EventTime
			if found.UserIdentity.ARN == arn && keep(&found) {
				lines = append(lines, found)
			}
			return len(lines) < most
		})
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, time.Time{}, fmt.Errorf("reading the audit log: %w", err)
		case !whole && len(lines) >= most:
			return lines, time.Time{}, nil
		case !whole:
			var found Line
			if json.Unmarshal(last, &found) == nil && found.EventTime.Before(oldest) {
				oldest = found.EventTime
			}
			return lines, oldest, nil
		}
		day = day.AddDate(0, 0, -1)
	}
	return lines, day.AddDate(0, 0, 1).Truncate(24 * time.Hour), nil
}

// backwards calls f for the lines of a file, the last one first, until f returns false or left
// bytes are read. It reports whether it got to the beginning.
func backwards(ctx context.Context, path string, left *int64, f func(line []byte) bool) (whole bool, err error) {
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return false, err
	}
	var rest []byte // the beginning of a line whose end has been read
	for at := info.Size(); at > 0; {
		size := min(at, chunkSize, *left)
		if size == 0 {
			return false, nil
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		at -= size
		*left -= size
		chunk := make([]byte, size, int(size)+len(rest))
		if _, err := file.ReadAt(chunk, at); err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		chunk = append(chunk, rest...)
		for {
			end := bytes.LastIndexByte(chunk, '\n')
			if end < 0 {
				break
			}
			if line := chunk[end+1:]; len(line) > 0 && !f(line) {
				return false, nil
			}
			chunk = chunk[:end]
		}
		// A damaged file may have a line without an end.
		if rest = chunk; len(rest) > MaxLine {
			rest = nil
		}
	}
	if len(rest) > 0 {
		f(rest)
	}
	return true, nil
}
