package api

import (
	"time"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/keyring"
)

// clusterCredentials is GetClusterCredentialsResult.
type clusterCredentials struct {
	user       string
	password   keyring.Secret
	expiration time.Time
}

// EncodeXML reveals the password. It runs after the audit line is written.
func (m *clusterCredentials) EncodeXML(e *awsquery.Encoder) {
	e.String("DbUser", m.user)
	e.String("DbPassword", m.password.Reveal())
	e.Time("Expiration", m.expiration)
}

// mint signs a grant for the caller, valid for duration from now. Expiration in the
// answer is the moment from which the gateway refuses the password, because drivers use
// it until then.
func (c *call) mint(g credential.Grant, duration time.Duration) (*clusterCredentials, error) {
	g.ID = credential.NewID()
	g.Principal = c.caller.Principal.ARN
	g.IssuedAt = c.now.UTC().Truncate(time.Second)
	g.NotAfter = g.IssuedAt.Add(duration)
	password, err := credential.Mint(c.keyring, g)
	if err != nil {
		return nil, err
	}
	if c.handler != nil { // nil if the call is only explained
		c.handler.issued.add(g.Cluster, g.DBUser, c.now, g.NotAfter)
	}
	c.credentialID = g.ID
	name := g.LogonName()
	c.response = append(c.space.response[:0],
		audit.String("dbUser", name),
		audit.Hidden("dbPassword"),
		audit.Time("expiration", g.NotAfter),
	)
	return &clusterCredentials{name, password, g.NotAfter}, nil
}
