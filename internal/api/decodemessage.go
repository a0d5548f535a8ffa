package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/iam"
)

// authorizationMessageHeader carries the message for DecodeAuthorizationMessage with
// each AccessDenied. Redshift's error texts have no place for it.
const authorizationMessageHeader = "X-Daypass-Authorization-Message"

// messagePurpose binds the sealed message to its use.
const messagePurpose = "authorization message"

// messageSize is the length in bytes of every message before it is sealed. If the
// length depended on the policies or on the resource's tags, it would reveal whether a
// role or a cluster exists. Sealed, a message has some 2800 characters; clients and
// proxies usually limit all headers together to 4 to 8 KB.
const messageSize = 2048

// denial describes a refused check, in the layout of AWS's decoded messages.
type denial struct {
	Allowed           bool            `json:"allowed"`
	ExplicitDeny      bool            `json:"explicitDeny"`
	MatchedStatements items[deciding] `json:"matchedStatements"`
	Failures          items[struct{}] `json:"failures"`
	Context           denialContext   `json:"context"`
	// Truncated is ours: a part was too long and was cut.
	Truncated bool `json:"truncated,omitempty"`
}

type items[T any] struct {
	Items []T `json:"items"`
}

type deciding struct {
	Policy      string `json:"sourcePolicyId"`
	Layer       string `json:"sourcePolicyType"`
	StatementID string `json:"statementId"`
	Effect      string `json:"effect"`
}

type denialContext struct {
	Principal  denialPrincipal        `json:"principal"`
	Action     string                 `json:"action"`
	Resource   string                 `json:"resource"`
	Conditions items[denialCondition] `json:"conditions"`
}

type denialPrincipal struct {
	ID  string `json:"id"`
	ARN string `json:"arn"`
}

type denialCondition struct {
	Key    string             `json:"key"`
	Values items[denialValue] `json:"values"`
}

type denialValue struct {
	Value string `json:"value"`
}

// sealDenial seals the reason for a refusal, so that only this installation can read
// it.
func (c *call) sealDenial(k *check, d iam.Decision, context *iam.Context) string {
	var message denial
	message.ExplicitDeny = d.Effect == iam.ExplicitDeny
	message.MatchedStatements.Items = []deciding{}
	message.Failures.Items = []struct{}{}
	if message.ExplicitDeny {
		message.MatchedStatements.Items = append(message.MatchedStatements.Items,
			deciding{d.Policy, d.Layer.String(), d.Sid, "DENY"})
	}
	message.Context.Principal = denialPrincipal{c.caller.UserID, c.caller.Principal.ARN}
	message.Context.Action, message.Context.Resource = k.action, k.resource
	message.Context.Conditions.Items = []denialCondition{}
	for _, key := range contextKeys(c, k) {
		found := context.Lookup(key)
		if found == nil {
			continue
		}
		item := denialCondition{Key: key}
		for _, v := range found {
			item.Values.Items = append(item.Values.Items, denialValue{v})
		}
		message.Context.Conditions.Items = append(message.Context.Conditions.Items, item)
	}
	return base64.RawURLEncoding.EncodeToString(c.keyring.Seal(c.now, message.encode(), []byte(messagePurpose)))
}

// encode writes the message in messageSize bytes, padded with spaces. Parts that are
// too long are cut.
func (m denial) encode() []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	// An empty message fits, so this ends.
	for most := messageSize; b.Len() == 0 || b.Len() > messageSize; most /= 2 {
		b.Reset()
		m.cut(most)
		if err := encoder.Encode(m); err != nil {
			panic("internal error: a denial has no JSON form: " + err.Error())
		}
	}
	return append(b.Bytes(), bytes.Repeat([]byte{' '}, messageSize-b.Len())...)
}

// cut shortens each text that a caller or an operator chose to at most most bytes, and
// keeps most/8 condition values.
func (m *denial) cut(most int) {
	text := func(s *string) {
		short := clip(*s, most)
		m.Truncated = m.Truncated || short != *s
		*s = short
	}
	for i := range m.MatchedStatements.Items {
		text(&m.MatchedStatements.Items[i].Policy)
		text(&m.MatchedStatements.Items[i].StatementID)
	}
	text(&m.Context.Principal.ID)
	text(&m.Context.Principal.ARN)
	text(&m.Context.Resource)
	left := most / 8
	conditions := &m.Context.Conditions.Items
	for i := range *conditions {
		if left == 0 {
			m.Truncated, *conditions = true, (*conditions)[:i]
			return
		}
		values := &(*conditions)[i].Values.Items
		if len(*values) > left {
			m.Truncated, *values = true, (*values)[:left]
		}
		left -= len(*values)
		text(&(*conditions)[i].Key)
		for j := range *values {
			text(&(*values)[j].Value)
		}
	}
}

// contextKeys returns the condition keys that the policies refer to. Other keys cannot
// have changed the decision.
func contextKeys(c *call, k *check) []string {
	var keys []string
	policies := slices.Concat(c.caller.Policies.Identity, c.caller.Policies.Session)
	for _, p := range append(policies, c.caller.Policies.Boundary, k.trust) {
		if p == nil {
			continue
		}
		for _, key := range p.ContextKeys() {
			if !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// decodeMessage decodes a sealed message for callers with the permission: STS API
// Reference, DecodeAuthorizationMessage.
type decodeMessage struct{ encoded string }

func readDecodeMessage(r *reader) *decodeMessage {
	encoded, given := r.hidden("EncodedMessage", encodedMessage)
	if !given {
		r.fail(errConstraint("encodedMessage", "not be null"))
	}
	return &decodeMessage{encoded}
}

func (p *decodeMessage) needs(*call) []check {
	return []check{{action: "sts:DecodeAuthorizationMessage", resource: "*"}}
}

func (p *decodeMessage) act(c *call) (awsquery.Result, error) {
	box, err := base64.RawURLEncoding.Strict().DecodeString(p.encoded)
	if err == nil {
		box, err = c.keyring.Open(c.now, box, []byte(messagePurpose))
	}
	if err != nil {
		return nil, &awsquery.Error{Code: "InvalidAuthorizationMessageException", Status: http.StatusBadRequest, Cause: err,
			Message: "The message is not one of this service, was changed, or is too old."}
	}
	return awsquery.ResultFunc(func(e *awsquery.Encoder) { e.String("DecodedMessage", string(bytes.TrimSpace(box))) }), nil
}
