package audit

import (
	"crypto/tls"
	"net/netip"
	"time"
)

// No type in this file has a field for a password, a secret access key or a session
// token.

// CallRecord is one API call: CloudTrail's record of an AwsApiCall event, with the
// credential and the deciding policy statements in additionalEventData. Strings
// left empty are left out of the line, or are null where CloudTrail has null.
type CallRecord struct {
	EventID      string    // Optional. A random UUID when empty.
	Time         time.Time // When the call came in. Optional: when the record is written.
	EventSource  string    // redshift.amazonaws.com, sts.amazonaws.com, iam.amazonaws.com
	EventName    string    // The action, or the text that the caller sent as one.
	Region       string    // Optional. The writer's, see SetOrigin.
	AccountID    string    // Optional. The writer's, see SetOrigin.
	RequestID    string    // x-amzn-RequestId of the answer
	Identity     Identity
	Source       netip.Addr // The caller's address, as trusted proxies report it.
	UserAgent    string
	TLS          *TLS   // nil: no TLS
	ErrorCode    string // Empty: the call succeeded.
	ErrorMessage string // The message that the caller got.
	// Reason is the true reason of a failure, if the caller got a less precise one.
	Reason string
	// Omitted is how many calls by unauthenticated callers were left out of the log since the
	// last such call that has a record.
	Omitted      int64
	ReadOnly     bool
	Request      []Field // requestParameters, names in lowerCamelCase as in CloudTrail
	Response     []Field // responseElements. nil: null
	CredentialID string  // The credential that was issued, if any.
	FromConsole  bool    // The call was made at the console, for someone with a browser.
	Decisions    []Decision
}

// Identity is CloudTrail's userIdentity element. The zero Identity is a caller who
// was not authenticated: type Unknown.
type Identity struct {
	Type             string // IAMUser, AssumedRole, WebIdentityUser, Root; empty: Unknown
	PrincipalID      string // AIDA…, AROA…:session
	ARN              string
	AccountID        string
	AccessKeyID      string
	UserName         string
	IdentityProvider string // of a WebIdentityUser
	Session          *SessionContext
}

// SessionContext is CloudTrail's sessionContext element: where temporary access keys come
// from.
type SessionContext struct {
	Issuer            *SessionIssuer // The IAM role or user that the session belongs to.
	FederatedProvider string         // The OpenID Connect issuer, if an identity provider signed the token.
	SourceIdentity    string
	CreationDate      time.Time
	MFAAuthenticated  bool
}

// SessionIssuer is CloudTrail's sessionIssuer element.
type SessionIssuer struct {
	Type        string // Role or User
	PrincipalID string
	ARN         string
	AccountID   string
	UserName    string
}

// TLS is CloudTrail's tlsDetails element.
type TLS struct {
	Version     string // TLSv1.2, TLSv1.3
	CipherSuite string // IANA's name
	// ServerName is the name that the client asked for: SNI in a logon, the Host header in a
	// call.
	ServerName string
}

// TLSDetails describes a connection. It returns nil for nil.
func TLSDetails(state *tls.ConnectionState) *TLS {
	if state == nil {
		return nil
	}
	details := &TLS{CipherSuite: tls.CipherSuiteName(state.CipherSuite), ServerName: state.ServerName}
	switch state.Version {
	case tls.VersionTLS13:
		details.Version = "TLSv1.3"
	case tls.VersionTLS12:
		details.Version = "TLSv1.2"
	default:
		details.Version = tls.VersionName(state.Version)
	}
	return details
}

// Decision is one of the checks that a call needed, and the statement that decided it.
type Decision struct {
	Action   string // redshift:GetClusterCredentials
	Resource string // the ARN that was checked
	Effect   string // Allow, Deny (by a statement), ImplicitDeny (no statement allows it)
	Layer    string // identity-based policy, permissions boundary, session policy, trust policy
	Policy   string // the policy's name. Empty: no statement decided.
	Sid      string // the statement's Sid, if it has one
	Index    int    // the statement's position in the policy, from 0
}

// LogonRecord is one attempt to log on at the gateway, from the time that the password
// arrived, or that the attempt ended without one.
type LogonRecord struct {
	EventID   string    // Optional. A random UUID when empty.
	Time      time.Time // Optional: when the record is written.
	SessionID string    // Connects the logon to its SessionEnd.
	Client    netip.AddrPort
	TLS       *TLS // nil: no TLS
	// From the start-up message:
	User, Database, ApplicationName string
	// From the credential; empty if it was not genuine:
	CredentialID string
	Principal    string // ARN
	Cluster      string
	DBUser       string
	DBGroups     []string
	AutoCreate   bool
	// SessionRole is the role that the gateway logged on as.
	SessionRole string
	// Upstream is the origin of the upstream session: new, prewarmed or parked. It is empty if
	// there is none.
	Upstream string
	// ProcessID is the server's process of the upstream session, as the server named it: %p in
	// its log. It is 0 if there is none.
	ProcessID uint32
	// SQLState and Message are the code and the text that the client got; both are empty if
	// the logon succeeded. Reason is the real cause.
	SQLState, Message, Reason string
	// Omitted is how many attempts without a genuine credential were left out of the log
	// since the last such attempt that has a record.
	Omitted int64
	Took    time.Duration // from accept to the answer
}

// SessionRecord is the end of a session.
type SessionRecord struct {
	EventID         string    // Optional. A random UUID when empty.
	Time            time.Time // Optional: when the record is written.
	SessionID       string
	Client          netip.AddrPort
	TLS             *TLS
	CredentialID    string
	Principal       string // ARN
	Cluster         string
	Database        string
	DBUser          string
	DBGroups        []string
	SessionRole     string
	ProcessID       uint32 // as in LogonRecord
	ApplicationName string
	Started         time.Time
	Duration        time.Duration
	BytesFromClient int64
	BytesToClient   int64
	// Reason is why the session ended: "client closed", "server closed", "client gone",
	// "shutdown", "idle limit", ….
	Reason   string
	SQLState string // The code of the last message to the client. Empty: an orderly end.
}

// Field is one named value of requestParameters or responseElements. Make it with
// String, Strings, Int, Bool, Time, Object, Omitted or Hidden.
type Field struct {
	name   string
	kind   fieldKind
	text   string
	list   []string
	number int64
	fields []Field
}

type fieldKind uint8

const (
	kindString fieldKind = iota
	kindStrings
	kindInt
	kindBool
	kindObject
)

// String is a string.
func String(name, value string) Field { return Field{name: name, text: value} }

// Strings is a list of strings. nil becomes the empty list.
func Strings(name string, values []string) Field {
	return Field{name: name, kind: kindStrings, list: values}
}

// Int is a number.
func Int(name string, value int64) Field { return Field{name: name, kind: kindInt, number: value} }

// Bool is true or false.
func Bool(name string, value bool) Field {
	f := Field{name: name, kind: kindBool}
	if value {
		f.number = 1
	}
	return f
}

// Time is a time in CloudTrail's form, in UTC and whole seconds.
func Time(name string, value time.Time) Field {
	return String(name, value.UTC().Format(time.RFC3339))
}

// Object is an object of fields.
func Object(name string, fields ...Field) Field {
	return Field{name: name, kind: kindObject, fields: fields}
}

// Omitted returns a field that stands for an invalid value, which is not recorded. It has the
// value's length.
func Omitted(name string, size int) Field {
	return Object(name, Bool("omitted", true), Int("originalSize", int64(size)))
}

// Hidden returns a field for a secret value, in CloudTrail's words.
func Hidden(name string) Field { return String(name, "HIDDEN_DUE_TO_SECURITY_REASONS") }
