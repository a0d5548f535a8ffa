package api

import (
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/sts"
)

// STS reports a broken constraint in these words, with names of parameters in lower
// camel case, before it authorises the caller. The messages do not repeat values, since
// a value may be a token or a code.

func errConstraint(parameter, constraint string) error {
	return errValidation("1 validation error detected: Value at '" + parameter +
		"' failed to satisfy constraint: Member must " + constraint)
}

func errValidation(message string) error {
	return &awsquery.Error{Code: "ValidationError", Status: http.StatusBadRequest, Message: message}
}

func errAccessDenied(message string) error {
	return &awsquery.Error{Code: "AccessDenied", Status: http.StatusForbidden, Message: message}
}

// constraint is the service model's constraint on a text.
type constraint struct {
	min, max int
	pattern  string // as AWS writes it; matches implements it
	matches  func(rune) bool
}

var (
	sessionName    = constraint{2, 64, `[\w+=,.@-]*`, wordOr("+=,.@-")}
	externalID     = constraint{2, 1224, `[\w+=,.@:\/-]*`, wordOr("+=,.@:/-")}
	arnText        = constraint{20, 2048, `[\u0009\u000A\u000D\u0020-\u007E\u0085\u00A0-\uD7FF\uE000-\uFFFD\u10000-\u10FFFF]+`, isPrintable}
	policyText     = constraint{1, 2048, `[\u0009\u000A\u000D\u0020-\u00FF]+`, isPolicyRune}
	serialNumber   = constraint{9, 256, `[\w+=/:,.@-]*`, wordOr("+=/:,.@-")}
	tokenCode      = constraint{6, 6, `[\d]*`, func(r rune) bool { return '0' <= r && r <= '9' }}
	tagKey         = constraint{1, 128, `[\p{L}\p{Z}\p{N}_.:/=+\-@]+`, isTagRune}
	tagValue       = constraint{0, 256, `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`, isTagRune}
	accessKeyID    = constraint{16, 128, `[\w]*`, wordOr("")}
	webToken       = constraint{4, 20000, "", nil}
	encodedMessage = constraint{1, 10240, "", nil}
)

// check checks a value against the constraint.
func (k constraint) check(parameter, value string) error {
	n := utf8.RuneCountInString(value)
	switch {
	case n < k.min:
		return errConstraint(parameter, "have length greater than or equal to "+strconv.Itoa(k.min))
	case n > k.max:
		return errConstraint(parameter, "have length less than or equal to "+strconv.Itoa(k.max))
	case k.matches != nil && strings.ContainsFunc(value, func(r rune) bool { return !k.matches(r) }):
		return errConstraint(parameter, "satisfy regular expression pattern: "+k.pattern)
	}
	return nil
}

// wordOr accepts \w, in ASCII, and the given characters.
func wordOr(others string) func(rune) bool {
	return func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' ||
			strings.ContainsRune(others, r)
	}
}

func isPrintable(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || ' ' <= r && r != 0x7F && r != utf8.RuneError && !(0x80 <= r && r < 0xA0 && r != 0x85)
}

func isPolicyRune(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || ' ' <= r && r <= 0xFF
}

func isTagRune(r rune) bool {
	return unicode.In(r, unicode.L, unicode.Z, unicode.N) || strings.ContainsRune("_.:/=+-@", r)
}

// constrained reads a parameter that may be left out, and reports whether it was given.
func (r *reader) constrained(name string, k constraint) (value string, given bool) {
	p := r.textAs(name, func(value string) bool { return k.matches != nil && k.check("", value) == nil })
	if p.given {
		if err := k.check(lowerCamel(name), p.value); err != nil {
			r.fail(err)
		}
	}
	return p.value, p.given
}

// needed reads a required parameter.
func (r *reader) needed(name string, k constraint) string {
	value, given := r.constrained(name, k)
	if !given {
		r.fail(errConstraint(lowerCamel(name), "not be null"))
	}
	return value
}

// hidden reads a secret parameter. The audit line records only that it was given.
func (r *reader) hidden(name string, k constraint) (value string, given bool) {
	value, given, err := r.query.Params.String(name)
	if err == nil && given {
		r.request = append(r.request, audit.Hidden(lowerCamel(name)))
		err = k.check(lowerCamel(name), value)
	}
	if err != nil {
		r.fail(err)
	}
	return value, given
}

// seconds reads DurationSeconds, and returns none if the call does not have it.
func (r *reader) seconds(least, most, none int) int {
	n, given, err := r.query.Params.Int("DurationSeconds")
	r.text("DurationSeconds")
	switch {
	case err != nil:
		r.fail(err)
	case !given:
		return none
	case n < least:
		r.fail(errConstraint("durationSeconds", "have value greater than or equal to "+strconv.Itoa(least)))
	case n > most:
		r.fail(errConstraint("durationSeconds", "have value less than or equal to "+strconv.Itoa(most)))
	}
	return n
}

// maxTags is how many session tags a session may have.
const maxTags = 50

// tags reads Tags and TransitiveTagKeys.
func (r *reader) tags() (tags []sts.Tag, transitive []string) {
	list, err := r.query.Params.Structs("Tags", "member")
	if err != nil {
		r.fail(err)
		return nil, nil
	}
	var fields []audit.Field
	size := 0
	for i, p := range list {
		// Both are required. A missing Value does not count as empty, because the caller
		// may have meant another tag.
		text := func(member string) string {
			value, given, err := p.String(member)
			if err == nil && !given {
				err = errConstraint("tags."+strconv.Itoa(i+1)+".member."+lowerCamel(member), "not be null")
			}
			if err != nil {
				r.fail(err)
			}
			return value
		}
		key, value := text("Key"), text("Value")
		tags = append(tags, sts.Tag{Key: key, Value: value})
		fields = append(fields, audit.String(key, value))
		size += len(key) + len(value)
	}
	switch {
	case len(tags) == 0:
	case checkTags(tags, nil) == nil:
		r.keep(audit.Object("principalTags", fields...))
	default:
		r.keep(audit.Omitted("principalTags", size))
	}
	transitive = r.list("TransitiveTagKeys", "member", 1000)
	if r.err == nil {
		r.fail(checkTags(tags, transitive))
	}
	return tags, transitive
}

// checkTags checks session tags against the rules for tags (IAM User Guide, id_tags and
// id_session-tags).
func checkTags(tags []sts.Tag, transitive []string) error {
	switch {
	case len(tags) > maxTags:
		return errConstraint("tags", "have length less than or equal to "+strconv.Itoa(maxTags))
	case len(transitive) > maxTags:
		return errConstraint("transitiveTagKeys", "have length less than or equal to "+strconv.Itoa(maxTags))
	}
	keys := make(map[string]bool, len(tags))
	for i, t := range tags {
		where := "tags." + strconv.Itoa(i+1) + ".member."
		if err := tagKey.check(where+"key", t.Key); err != nil {
			return err
		}
		if err := tagValue.check(where+"value", t.Value); err != nil {
			return err
		}
		key := iam.FoldKey(t.Key)
		switch {
		case strings.HasPrefix(key, "aws:"):
			return awsquery.Invalid("Tags", "must not have keys that begin with aws:")
		case keys[key]:
			return &awsquery.Error{Code: "InvalidParameterValue", Status: http.StatusBadRequest,
				Message: "Duplicate tag keys found. Please note that Tag keys are case insensitive."}
		}
		keys[key] = true
	}
	for _, key := range transitive {
		if !keys[iam.FoldKey(key)] {
			return &awsquery.Error{Code: "InvalidParameterValue", Status: http.StatusBadRequest,
				Message: "The specified transitive tag key must be included in the requested tags."}
		}
	}
	return nil
}
