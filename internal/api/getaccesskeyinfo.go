package api

import (
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/sts"
)

// getAccessKeyInfo returns the account of an access key: STS API Reference,
// GetAccessKeyInfo. Most ids contain their account. For others the answer reveals
// whether the configuration has the key, so it needs a permission.
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
