package api

import (
	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
)

// Caller is who makes a call: the signature has been verified, and the session
// token opened if there was one.
type Caller struct {
	// Principal is how policies see the caller.
	Principal iam.Principal
	// UserID is the unique id, aws:userid: AIDA… of an IAM user.
	UserID string
	// PrincipalARN is aws:PrincipalArn: the ARN that policies name.
	PrincipalARN string
	AccessKeyID  string
	// Policies are all that bear on the caller. They are shared with other
	// calls and must not be changed.
	Policies *iam.Policies
	// Tags are the principal tags.
	Tags map[string]string
	// User is the IAM user behind the call, or nil.
	User *directory.User
}

// ofUser is the caller who signed with a long-term access key.
func ofUser(d *directory.Directory, key *directory.AccessKey) *Caller {
	u := key.User
	return &Caller{
		Principal:    iam.Principal{Type: iam.UserPrincipal, ARN: u.ARN, Account: d.Account},
		UserID:       u.ID,
		PrincipalARN: u.ARN,
		AccessKeyID:  key.ID,
		Policies:     &u.Policies,
		Tags:         u.Tags,
		User:         u,
	}
}

// identity is the caller as the audit log names it. Of someone who was not
// authenticated there is no more to say than which key he named.
func (c *call) identity() audit.Identity {
	caller := c.caller
	if caller == nil {
		return audit.Identity{AccessKeyID: c.claimed}
	}
	return audit.Identity{
		Type:        "IAMUser",
		PrincipalID: caller.UserID,
		ARN:         caller.Principal.ARN,
		AccountID:   caller.Principal.Account,
		AccessKeyID: caller.AccessKeyID,
		UserName:    caller.User.Name,
	}
}
