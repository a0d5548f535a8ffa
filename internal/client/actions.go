package client

import (
	"context"
	"net/url"
	"time"
)

// Selector selects the credentials to revoke: exactly one of CredentialID, Principal,
// DBUser, Cluster (by itself) and All. Cluster may narrow DBUser.
type Selector struct {
	CredentialID, Principal, DBUser, Cluster string
	All                                      bool
	IssuedBefore                             time.Time // zero: now, and for a CredentialID any time
}

// Revocation is a revocation in force.
type Revocation struct {
	CredentialID string     `xml:"CredentialId" json:"CredentialId,omitempty"`
	Principal    string     `xml:"Principal" json:"Principal,omitempty"`
	DBUser       string     `xml:"DbUser" json:"DbUser,omitempty"`
	Cluster      string     `xml:"ClusterIdentifier" json:"ClusterIdentifier,omitempty"`
	All          bool       `xml:"All" json:"All,omitempty"`
	IssuedBefore *time.Time `xml:"IssuedBefore" json:"IssuedBefore,omitempty"`
	RevokedAt    time.Time  `xml:"RevokedAt" json:"RevokedAt"`
	RevokedBy    string     `xml:"RevokedBy" json:"RevokedBy"`
	ExpiresAt    time.Time  `xml:"ExpiresAt" json:"ExpiresAt"`
}

// Revoked is the result of a revocation.
type Revoked struct {
	Revocation Revocation
	// Sessions is the number of sessions that the revocation ends at the gateway that answered.
	Sessions int
	// Warnings say that the server does not know the given name.
	Warnings []string `xml:"Warnings>Warning" json:"Warnings,omitempty"`
}

// Revoke revokes credentials.
func (c *Client) Revoke(ctx context.Context, s Selector) (Revoked, error) {
	form := url.Values{}
	for name, value := range map[string]string{
		"CredentialId": s.CredentialID, "Principal": s.Principal, "DbUser": s.DBUser, "ClusterIdentifier": s.Cluster,
	} {
		if value != "" {
			form.Set(name, value)
		}
	}
	if s.All {
		form.Set("All", "true")
	}
	if !s.IssuedBefore.IsZero() {
		form.Set("IssuedBefore", s.IssuedBefore.UTC().Format(time.RFC3339Nano))
	}
	var result Revoked
	err := c.call(ctx, "RevokeCredentials", form, &result)
	return result, err
}

// Revocations returns the revocations in force, the oldest first.
func (c *Client) Revocations(ctx context.Context) ([]Revocation, error) {
	list := []Revocation{}
	for marker := ""; ; {
		var page struct {
			Marker      string
			Revocations []Revocation `xml:"Revocations>Revocation"`
		}
		if err := c.call(ctx, "ListRevocations", paged(url.Values{}, marker), &page); err != nil {
			return nil, err
		}
		list = append(list, page.Revocations...)
		if marker = page.Marker; marker == "" {
			return list, nil
		}
	}
}

func paged(form url.Values, marker string) url.Values {
	if marker != "" {
		form.Set("Marker", marker)
	}
	return form
}

// Session is an open session.
type Session struct {
	ID              string    `xml:"SessionId" json:"SessionId"`
	CredentialID    string    `xml:"CredentialId" json:"CredentialId"`
	Principal       string    `json:"Principal"`
	Cluster         string    `xml:"ClusterIdentifier" json:"ClusterIdentifier"`
	Database        string    `xml:"DbName" json:"DbName"`
	DBUser          string    `xml:"DbUser" json:"DbUser"`
	DBGroups        []string  `xml:"DbGroups>DbGroup" json:"DbGroups"`
	SessionRole     string    `json:"SessionRole"`
	ApplicationName string    `json:"ApplicationName"`
	ClientAddress   string    `json:"ClientAddress"`
	TLS             bool      `json:"TLS"`
	ProcessID       uint32    `xml:"ProcessId" json:"ProcessId"`
	StartedAt       time.Time `json:"StartedAt"`
	Expiration      time.Time `json:"Expiration"`       // of the credential
	Server          string    `json:"Server,omitempty"` // empty: the only one
	State           string    `json:"State"`
	BytesFromClient uint64    `json:"BytesFromClient"`
	BytesToClient   uint64    `json:"BytesToClient"`
}

// Sessions returns the open sessions, the oldest first, and the servers that did not answer.
// An empty parameter selects all.
func (c *Client) Sessions(ctx context.Context, cluster, dbUser string) (list []Session, unanswered []string, err error) {
	list = []Session{}
	for marker := ""; ; {
		form := paged(url.Values{}, marker)
		if cluster != "" {
			form.Set("ClusterIdentifier", cluster)
		}
		if dbUser != "" {
			form.Set("DbUser", dbUser)
		}
		var page struct {
			Marker     string
			Sessions   []Session `xml:"Sessions>Session"`
			Unanswered []string  `xml:"Unanswered>Server"`
		}
		if err := c.call(ctx, "ListSessions", form, &page); err != nil {
			return nil, nil, err
		}
		unanswered = page.Unanswered
		for _, one := range page.Sessions {
			if one.DBGroups == nil {
				one.DBGroups = []string{} // encode an empty list, not null, as JSON
			}
			list = append(list, one)
		}
		if marker = page.Marker; marker == "" {
			return list, unanswered, nil
		}
	}
}

// Terminate asks the gateway to end a session, and does not wait until it has ended.
func (c *Client) Terminate(ctx context.Context, id string) error {
	return c.call(ctx, "TerminateSession", url.Values{"SessionId": {id}}, &struct{}{})
}
