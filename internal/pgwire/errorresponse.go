package pgwire

// Severities of an ErrorResponse and a NoticeResponse.
const (
	Fatal  = "FATAL"
	Notice = "NOTICE"
)

// ErrorFields are the fields of an ErrorResponse or NoticeResponse that the gateway
// reads or writes. Empty fields are left out.
type ErrorFields struct {
	Severity string
	SQLState string
	Message  string
	Detail   string
	Hint     string
	Routine  string // in the server's source; it does not depend on the server's language
}

// AppendError appends an ErrorResponse.
func AppendError(b []byte, f ErrorFields) []byte { return f.append(b, MsgErrorResponse) }

// AppendNotice appends a NoticeResponse.
func AppendNotice(b []byte, f ErrorFields) []byte { return f.append(b, MsgNoticeResponse) }

func (f *ErrorFields) append(b []byte, kind byte) []byte {
	b, at := Begin(b, kind)
	for _, field := range []struct {
		kind byte
		text string
	}{{'S', f.Severity}, {'V', f.Severity}, {'C', f.SQLState}, {'M', f.Message}, {'D', f.Detail}, {'H', f.Hint}, {'R', f.Routine}} {
		if field.text != "" {
			b = AppendString(append(b, field.kind), field.text)
		}
	}
	return Finish(append(b, 0), at)
}

// ParseErrorFields reads the body of an ErrorResponse. Fields after a malformed one
// are not read.
func ParseErrorFields(body []byte) ErrorFields {
	var f ErrorFields
	for len(body) > 1 {
		kind := body[0]
		text, rest, ok := CutString(body[1:])
		if !ok {
			break
		}
		switch kind {
		case 'V':
			f.Severity = text
		case 'C':
			f.SQLState = text
		case 'M':
			f.Message = text
		case 'D':
			f.Detail = text
		case 'H':
			f.Hint = text
		case 'R':
			f.Routine = text
		}
		body = rest
	}
	return f
}
