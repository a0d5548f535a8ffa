package awscli

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/smithy-go"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
	"github.com/daypass/daypass/internal/awsconfig"
)

// element is one element of an answer: its name without the namespace, the
// text before its first child, and its children.
type element struct {
	tag      string
	text     string
	children []*element
}

func (e *element) child(tag string) *element {
	for _, c := range e.children {
		if c.tag == tag {
			return c
		}
	}
	return nil
}

// maxElementDepth bounds how deep the elements of an answer nest.
const maxElementDepth = 100

func parseXML(data []byte) (*element, error) {
	decoder := xml.NewDecoder(bytes.NewReader(data))
	var root *element
	var open []*element
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) && root != nil {
			return root, nil
		}
		if err != nil {
			return nil, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := &element{tag: token.Name.Local}
			switch {
			case len(open) > 0:
				parent := open[len(open)-1]
				parent.children = append(parent.children, e)
			case root != nil:
				return nil, errors.New("junk after document element")
			default:
				root = e
			}
			if open = append(open, e); len(open) > maxElementDepth {
				return nil, errors.New("elements nest too deep")
			}
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				if e := open[len(open)-1]; len(e.children) == 0 {
					e.text += string(token)
				}
			}
		}
	}
}

func unreadable(err error, body []byte) error {
	return fail(awsconfig.ExitGeneral, "Unable to parse response (%v), invalid XML received. Further retries may succeed:\n%s", err, excerpt(body))
}

// excerpt returns the beginning of an answer that cannot be parsed.
func excerpt(body []byte) string {
	const most = 1000
	if len(body) > most {
		body = body[:most]
	}
	return strings.ToValidUTF8(string(body), "\ufffd")
}

// decode reads the answer of an operation into the members of its model, in
// the model's order. timestamps makes the value of a timestamp.
func decode(op *operation, body []byte, timestamps func(string) (any, error)) (*object, error) {
	root, err := parseXML(body)
	if err != nil {
		// The message does not quote the body, which may contain a password.
		return nil, fail(awsconfig.ExitGeneral, "Unable to parse response (%v), invalid XML received. Further retries may succeed", err)
	}
	wrapper := op.name + "Result"
	result := root.child(wrapper)
	if result == nil {
		return nil, fail(awsconfig.ExitGeneral, "'%s': the answer has no such element", wrapper)
	}
	d := decoder{timestamps: timestamps}
	value, err := d.value(op.output, result)
	if err != nil {
		return nil, err
	}
	return value.(*object), nil
}

type decoder struct {
	timestamps func(string) (any, error)
}

func (d decoder) value(s *shape, e *element) (any, error) {
	switch s.kind {
	case kindStructure:
		o := new(object)
		for _, m := range s.members {
			child := e.child(m.name)
			if child == nil {
				continue
			}
			value, err := d.value(m.shape, child)
			if err != nil {
				return nil, err
			}
			o.Set(m.name, value)
		}
		return o, nil
	case kindList:
		values := []any{}
		for _, child := range e.children {
			value, err := d.value(s.element, child)
			if err != nil {
				return nil, err
			}
			values = append(values, value)
		}
		return values, nil
	case kindBoolean:
		return e.text == "true", nil
	case kindInteger:
		n, ok := pyvalue.ParseInt(e.text)
		if !ok {
			return nil, fail(awsconfig.ExitGeneral, "invalid literal for int() with base 10: %s", pyvalue.Repr(e.text))
		}
		return n, nil
	case kindDouble:
		f, ok := pyvalue.ParseFloat(e.text)
		if !ok {
			return nil, fail(awsconfig.ExitGeneral, "could not convert string to float: %s", pyvalue.Repr(e.text))
		}
		return f, nil
	case kindTimestamp:
		return d.timestamps(e.text)
	}
	return e.text, nil
}

// decodeError reads the answer of a call that failed.
func decodeError(status int, body []byte) error {
	trimmed := bytes.TrimSpace(body)
	if status >= 500 && (len(trimmed) == 0 || bytes.HasPrefix(trimmed, []byte("<html>"))) {
		return &smithy.GenericAPIError{Code: strconv.Itoa(status), Message: http.StatusText(status)}
	}
	root, err := parseXML(body)
	if err != nil {
		return unreadable(err, body)
	}
	if errors := root.child("Errors"); errors != nil {
		root = errors
	}
	answer := &smithy.GenericAPIError{Code: "Unknown", Message: "Unknown"}
	if e := root.child("Error"); e != nil {
		if code := e.child("Code"); code != nil {
			answer.Code = orNone(code.text)
		}
		if message := e.child("Message"); message != nil {
			answer.Message = orNone(message.text)
		}
	}
	return answer
}

func orNone(text string) string {
	if text == "" {
		return "None"
	}
	return text
}

// timestampFormat returns how timestamps are printed: as they came, which is
// the default, or parsed and rendered again.
func timestampFormat(name string) (func(string) (any, error), error) {
	switch name {
	case "", "none", "wire":
		return func(text string) (any, error) { return text, nil }, nil
	case "iso8601":
		return iso8601, nil
	}
	return nil, fail(awsconfig.ExitConfiguration, `Unknown cli_timestamp_format value: %s, valid values are "none", "wire" or "iso8601"`, name)
}

func iso8601(text string) (any, error) {
	if f, ok := pyvalue.ParseFloat(text); ok {
		whole := int64(f)
		return render(time.Unix(whole, int64((f-float64(whole))*1e6)*1000).Local(), true), nil
	}
	for _, layout := range []string{
		time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05Z0700",
		time.RFC1123, time.RFC1123Z, time.RFC850,
	} {
		if t, err := time.Parse(layout, text); err == nil {
			return render(t, true), nil
		}
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return render(t, false), nil
		}
	}
	return nil, fail(awsconfig.ExitGeneral, `Invalid timestamp "%s"`, text)
}

func render(t time.Time, zone bool) string {
	text := t.Format("2006-01-02T15:04:05")
	if micros := t.Nanosecond() / 1000; micros != 0 {
		text += fmt.Sprintf(".%06d", micros)
	}
	if zone {
		text += t.Format("-07:00")
	}
	return text
}
