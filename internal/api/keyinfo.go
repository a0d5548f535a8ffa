package api

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/sts"
)

// getAccessKeyInfo tells the account of an access key, and nothing about whether
// it exists: STS API Reference, GetAccessKeyInfo.
type getAccessKeyInfo struct{ id string }

func readGetAccessKeyInfo(r *reader) *getAccessKeyInfo {
	return &getAccessKeyInfo{id: r.needed("AccessKeyId", accessKeyID)}
}

func (p *getAccessKeyInfo) needs(*call) []check {
	return []check{{action: "sts:GetAccessKeyInfo", resource: "*"}}
}

func (p *getAccessKeyInfo) act(c *call) (awsquery.Result, error) {
	account := c.directory.Account
	if _, ours := c.directory.AccessKey(p.id); !ours {
		var ok bool
		if account, ok = sts.AccountOf(p.id); !ok {
			return nil, errValidation("AccessKeyId is not an access key ID that names an account")
		}
	}
	return awsquery.ResultFunc(func(e *awsquery.Encoder) { e.String("Account", account) }), nil
}

// authorizationMessageHeader carries, with each AccessDenied, the message that
// DecodeAuthorizationMessage explains. Redshift's own texts have no room for it.
const authorizationMessageHeader = "X-Daypass-Authorization-Message"

// authorizationMessage is what of a refused check is told to those who may ask.
const messagePurpose = "authorization message"

// sealDenial encodes why a check was refused, readable for us only.
func (c *call) sealDenial(k *check, d iam.Decision, context *iam.Context) string {
	type value struct {
		Value string `json:"value"`
	}
	type values struct {
		Items []value `json:"items"`
	}
	type condition struct {
		Key    string `json:"key"`
		Values values `json:"values"`
	}
	type statement struct {
		Policy      string `json:"sourcePolicyId"`
		Layer       string `json:"sourcePolicyType"`
		StatementID string `json:"statementId"`
		Effect      string `json:"effect"`
	}
	var message struct {
		Allowed           bool `json:"allowed"`
		ExplicitDeny      bool `json:"explicitDeny"`
		MatchedStatements struct {
			Items []statement `json:"items"`
		} `json:"matchedStatements"`
		Failures struct {
			Items []struct{} `json:"items"`
		} `json:"failures"`
		Context struct {
			Principal struct {
				ID  string `json:"id"`
				ARN string `json:"arn"`
			} `json:"principal"`
			Action     string `json:"action"`
			Resource   string `json:"resource"`
			Conditions struct {
				Items []condition `json:"items"`
			} `json:"conditions"`
		} `json:"context"`
	}
	message.ExplicitDeny = d.Effect == iam.ExplicitDeny
	message.MatchedStatements.Items = []statement{}
	message.Failures.Items = []struct{}{}
	if message.ExplicitDeny {
		message.MatchedStatements.Items = append(message.MatchedStatements.Items,
			statement{d.Policy, d.Layer.String(), d.Sid, "DENY"})
	}
	message.Context.Principal.ID = c.caller.UserID
	message.Context.Principal.ARN = c.caller.Principal.ARN
	message.Context.Action, message.Context.Resource = k.action, k.resource
	message.Context.Conditions.Items = []condition{}
	for _, key := range contextKeys(c, k) {
		found := context.Lookup(key)
		if found == nil {
			continue
		}
		item := condition{Key: key}
		for _, v := range found {
			item.Values.Items = append(item.Values.Items, value{v})
		}
		message.Context.Conditions.Items = append(message.Context.Conditions.Items, item)
	}
	plain, err := json.Marshal(message)
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(c.keyring.Seal(c.now, plain, []byte(messagePurpose)))
}

// contextKeys are the keys that the caller's policies look at: the others did not
// matter.
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

// decodeMessage explains a refusal to those who may know: STS API Reference,
// DecodeAuthorizationMessage.
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
	return awsquery.ResultFunc(func(e *awsquery.Encoder) { e.String("DecodedMessage", string(box)) }), nil
}
