package api

import "github.com/daypass/daypass/internal/awsquery"

// getCallerIdentity returns who signed the call: STS API Reference, GetCallerIdentity.
type getCallerIdentity struct{}

func readGetCallerIdentity(*reader) *getCallerIdentity { return &getCallerIdentity{} }

func (*getCallerIdentity) act(c *call) (awsquery.Result, error) {
	return awsquery.ResultFunc(func(e *awsquery.Encoder) {
		e.String("Arn", c.caller.Principal.ARN)
		e.String("UserId", c.caller.UserID)
		e.String("Account", c.caller.Principal.Account)
	}), nil
}
