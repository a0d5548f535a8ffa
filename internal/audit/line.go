package audit

import (
	"crypto/rand"
	"net/netip"
	"strings"
	"time"
)

// eventVersion is the version of CloudTrail's record that the lines follow.
const eventVersion = "1.11"

// The eventSource and eventType of records that CloudTrail does not have.
const (
	gatewaySource = "gateway.daypass"
	gatewayEvent  = "DaypassGatewayEvent"
	auditSource   = "audit.daypass"
	auditEvent    = "DaypassAuditEvent"
)

// origin is the account and region of records that name none.
type origin struct{ account, region string }

// common has the fields that every record has.
type common struct {
	id, eventType, account string
	readOnly               bool
	tls                    *TLS
}

func (o *object) call(r *CallRecord, from origin, now time.Time) {
	o.word("eventVersion", eventVersion)
	o.identity(&r.Identity)
	o.time("eventTime", orNow(r.Time, now))
	o.id("eventSource", r.EventSource)
	o.string("eventName", r.EventName)
	o.id("awsRegion", or(r.Region, from.region))
	o.address(r.Source)
	o.string("userAgent", r.UserAgent)
	o.string("errorCode", r.ErrorCode)
	o.string("errorMessage", r.ErrorMessage)
	o.fields("requestParameters", r.Request)
	o.fields("responseElements", r.Response)
	if r.CredentialID != "" || r.Reason != "" || r.Omitted > 0 || len(r.Decisions) > 0 {
		o.open("additionalEventData")
		o.id("credentialId", r.CredentialID)
		o.string("reason", r.Reason)
		if r.Omitted > 0 {
			o.int("omitted", r.Omitted)
		}
		o.decisions(r.Decisions)
		o.close()
	}
	o.id("requestID", r.RequestID)
	if r.FromConsole {
		o.word("sessionCredentialFromConsole", "true") // CloudTrail writes it as text
	}
	o.end(common{r.EventID, "AwsApiCall", or(r.AccountID, from.account), r.ReadOnly, r.TLS})
}

func (o *object) logon(r *LogonRecord, from origin, now time.Time) {
	o.word("eventVersion", eventVersion)
	identity := identityOf(r.Principal)
	o.identity(&identity)
	o.time("eventTime", orNow(r.Time, now))
	o.word("eventSource", gatewaySource)
	o.word("eventName", "Logon")
	o.id("awsRegion", from.region)
	o.address(r.Client.Addr())
	o.string("errorCode", r.SQLState)
	o.string("errorMessage", r.Message)
	o.fields("requestParameters", []Field{
		String("user", r.User), String("database", r.Database), String("applicationName", r.ApplicationName),
	})
	o.fields("responseElements", nil)
	o.open("additionalEventData")
	o.id("credentialId", r.CredentialID)
	o.id("sessionId", r.SessionID)
	if r.SQLState == "" {
		o.word("outcome", "success")
	} else {
		o.word("outcome", "failure")
	}
	o.string("reason", r.Reason)
	if r.Omitted > 0 {
		o.int("omitted", r.Omitted)
	}
	o.id("cluster", r.Cluster)
	o.id("dbUser", r.DBUser)
	o.string("database", r.Database)
	if r.CredentialID != "" {
		o.strings("dbGroups", r.DBGroups)
		o.bool("autoCreate", r.AutoCreate)
	}
	o.id("sessionRole", r.SessionRole)
	if r.Upstream != "" {
		o.word("upstreamSession", r.Upstream)
	}
	o.process(r.ProcessID)
	o.port(r.Client)
	o.milliseconds("durationMs", r.Took)
	o.close()
	o.end(common{r.EventID, gatewayEvent, from.account, false, r.TLS})
}

func (o *object) sessionEnd(r *SessionRecord, from origin, now time.Time) {
	o.word("eventVersion", eventVersion)
	identity := identityOf(r.Principal)
	o.identity(&identity)
	o.time("eventTime", orNow(r.Time, now))
	o.word("eventSource", gatewaySource)
	o.word("eventName", "SessionEnd")
	o.id("awsRegion", from.region)
	o.address(r.Client.Addr())
	o.string("errorCode", r.SQLState)
	o.fields("requestParameters", nil)
	o.fields("responseElements", nil)
	o.open("additionalEventData")
	o.id("credentialId", r.CredentialID)
	o.id("sessionId", r.SessionID)
	o.string("reason", r.Reason)
	o.id("cluster", r.Cluster)
	o.id("dbUser", r.DBUser)
	o.string("database", r.Database)
	o.strings("dbGroups", r.DBGroups)
	o.id("sessionRole", r.SessionRole)
	o.process(r.ProcessID)
	o.string("applicationName", r.ApplicationName)
	o.port(r.Client)
	o.time("started", r.Started)
	o.milliseconds("durationMs", r.Duration)
	o.int("bytesFromClient", r.BytesFromClient)
	o.int("bytesToClient", r.BytesToClient)
	o.close()
	o.end(common{r.EventID, gatewayEvent, from.account, false, r.TLS})
}

// gap writes the line that follows when the log works again after a fault: how many acts were
// refused, since when, and why.
func (o *object) gap(refused int64, since time.Time, cause error, from origin, now time.Time) {
	o.word("eventVersion", eventVersion)
	o.open("userIdentity")
	o.word("type", "AWSService")
	o.word("invokedBy", auditSource)
	o.close()
	o.time("eventTime", now)
	o.word("eventSource", auditSource)
	o.word("eventName", "AuditGap")
	o.id("awsRegion", from.region)
	o.string("errorMessage", cause.Error())
	o.fields("requestParameters", nil)
	o.fields("responseElements", nil)
	o.open("additionalEventData")
	o.int("refused", refused)
	o.time("since", since)
	o.close()
	o.end(common{"", auditEvent, from.account, true, nil})
}

// end writes the last members of every record, and the newline.
func (o *object) end(c common) {
	if c.id == "" {
		o.name("eventID")
		o.b = appendUUID(o.b)
	} else {
		o.id("eventID", c.id)
	}
	o.bool("readOnly", c.readOnly)
	o.word("eventType", c.eventType)
	o.bool("managementEvent", true)
	o.id("recipientAccountId", c.account)
	o.word("eventCategory", "Management")
	if c.tls != nil {
		o.open("tlsDetails")
		o.string("tlsVersion", c.tls.Version)
		o.string("cipherSuite", c.tls.CipherSuite)
		o.string("clientProvidedHostHeader", c.tls.ServerName)
		o.close()
	}
	o.b = append(o.b, '}', '\n')
}

func (o *object) identity(i *Identity) {
	o.open("userIdentity")
	o.string("type", or(i.Type, "Unknown"))
	o.id("principalId", i.PrincipalID)
	o.id("arn", i.ARN)
	o.id("accountId", i.AccountID)
	o.id("accessKeyId", i.AccessKeyID)
	o.id("userName", i.UserName)
	o.id("identityProvider", i.IdentityProvider)
	if s := i.Session; s != nil {
		o.open("sessionContext")
		if s.Issuer != nil {
			o.open("sessionIssuer")
			o.string("type", s.Issuer.Type)
			o.id("principalId", s.Issuer.PrincipalID)
			o.id("arn", s.Issuer.ARN)
			o.id("accountId", s.Issuer.AccountID)
			o.id("userName", s.Issuer.UserName)
			o.close()
		}
		if s.FederatedProvider != "" {
			o.open("webIdFederationData")
			o.id("federatedProvider", s.FederatedProvider)
			o.close()
		}
		o.open("attributes")
		o.time("creationDate", s.CreationDate)
		// CloudTrail writes it as text.
		if s.MFAAuthenticated {
			o.word("mfaAuthenticated", "true")
		} else {
			o.word("mfaAuthenticated", "false")
		}
		o.close()
		o.id("sourceIdentity", s.SourceIdentity)
		o.close()
	}
	o.close()
}

// decisions always includes the last decision, because it decided the call.
func (o *object) decisions(list []Decision) {
	if len(list) == 0 {
		return
	}
	most := o.detail.list / 4
	o.name("decisions")
	o.b = append(o.b, '[')
	for i := range list {
		if i >= most && i < len(list)-1 {
			continue
		}
		d := &list[i]
		o.comma()
		o.b = append(o.b, '{')
		o.string("action", d.Action)
		o.string("resource", d.Resource)
		o.string("effect", d.Effect)
		o.string("layer", d.Layer)
		if d.Policy != "" {
			o.string("policy", d.Policy)
			o.string("sid", d.Sid)
			o.int("statement", int64(d.Index))
		}
		o.close()
	}
	o.b = append(o.b, ']')
	if left := len(list) - 1 - most; left > 0 {
		o.int("decisionsOmitted", int64(left))
	}
}

func (o *object) address(a netip.Addr) {
	if a.IsValid() {
		o.string("sourceIPAddress", a.Unmap().String())
	}
}

func (o *object) port(a netip.AddrPort) {
	if a.IsValid() {
		o.int("clientPort", int64(a.Port()))
	}
}

// process leaves out a process that the server has not named.
func (o *object) process(id uint32) {
	if id != 0 {
		o.int("processId", int64(id))
	}
}

// identityOf describes the principal of a credential as an API call by that principal would,
// as far as the ARN tells.
func identityOf(arn string) Identity {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 {
		return Identity{ARN: arn}
	}
	i := Identity{ARN: arn, AccountID: parts[4]}
	kind, name, _ := strings.Cut(parts[5], "/")
	switch service := parts[2]; {
	case service == "iam" && kind == "user":
		i.Type, i.UserName = "IAMUser", name[strings.LastIndexByte(name, '/')+1:]
	case service == "iam" && parts[5] == "root":
		i.Type = "Root"
	case service == "sts" && kind == "assumed-role":
		i.Type = "AssumedRole"
	case service == "sts" && kind == "federated-user":
		i.Type = "FederatedUser"
	}
	return i
}

// appendUUID appends a random UUID (RFC 9562, version 4) in quotes.
func appendUUID(b []byte) []byte {
	var id [16]byte
	rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	b = append(b, '"')
	for i, c := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = append(b, hexDigits[c>>4], hexDigits[c&15])
	}
	return append(b, '"')
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func orNow(t, now time.Time) time.Time {
	if t.IsZero() {
		return now
	}
	return t
}
