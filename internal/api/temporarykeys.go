package api

import (
	"errors"
	"net/http"
	"time"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/sts"
)

// issue makes the temporary access key of a session.
func (c *call) issue(s *sts.Session, seconds int) (sts.Credentials, error) {
	credentials, err := sts.Issue(c.keyring, c.now, time.Duration(seconds)*time.Second, s)
	if errors.Is(err, sts.ErrPackedTooLarge) {
		return credentials, &awsquery.Error{Code: "PackedPolicyTooLarge", Status: http.StatusBadRequest, Message: err.Error()}
	}
	c.response = append(c.response, audit.Object("credentials",
		audit.String("accessKeyId", credentials.AccessKeyID),
		audit.Hidden("sessionToken"),
		audit.Time("expiration", credentials.Expiration)))
	return credentials, err
}

// encodeCredentials reveals the secret. It runs after the audit line is written.
func encodeCredentials(e *awsquery.Encoder, c sts.Credentials) {
	e.Element("Credentials", func() {
		e.String("AccessKeyId", c.AccessKeyID)
		e.String("SecretAccessKey", c.Secret.Reveal())
		e.String("SessionToken", c.Token.Reveal())
		e.Time("Expiration", c.Expiration)
	})
}
