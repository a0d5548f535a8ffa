package api

import (
	"strconv"
	"time"

	"github.com/daypass/daypass/internal/awsquery"
)

// duration is DurationSeconds of a credential. It is parsed once, so that the
// credential gets exactly the duration that the policies allowed.
type duration struct {
	seconds int
	text    string // as sent
	err     error  // if text is not a number
}

func (r *reader) duration() duration {
	d := duration{text: r.text("DurationSeconds").value}
	var given bool
	if d.seconds, given, d.err = r.query.Params.Int("DurationSeconds"); !given {
		d.seconds = defaultDuration
	}
	return d
}

// key returns the condition key. Without the parameter its value is 900, the duration that the
// credential gets. A number is always written in the same form: otherwise 03600 would get past a
// Deny for 3600.
func (d *duration) key() conditionKey {
	if d.err != nil {
		return conditionKey{"redshift:DurationSeconds", d.text}
	}
	return conditionKey{"redshift:DurationSeconds", strconv.Itoa(d.seconds)}
}

// lifetime returns the duration, which has to be 900 to 3600 seconds.
func (d *duration) lifetime() (time.Duration, error) {
	switch {
	case d.err != nil:
		return 0, d.err
	case d.seconds < minDuration || d.seconds > maxDuration:
		return 0, awsquery.Invalid("DurationSeconds", "must be between 900 and 3600")
	}
	return time.Duration(d.seconds) * time.Second, nil
}
