package api_test

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/sts"
)

// Sessions end when the access key that created them is removed: those of GetSessionToken, of
// roles, and of roles assumed from those.
func TestSessionsEndWithTheirAccessKey(t *testing.T) {
	const second = "AKIASECOND0000000000"
	spec := func(change func(ana, bob *directory.UserSpec)) directory.Spec {
		s := withRoles(t)
		s.Users[1].AccessKeys = append(s.Users[1].AccessKeys, directory.AccessKey{ID: second, Secret: secret})
		if change != nil {
			change(&s.Users[1], &s.Users[2])
		}
		return s
	}
	s := newServer(t, spec(nil))
	first := longTerm("ana")
	user := s.stsCall(first, "Action", "GetSessionToken", "DurationSeconds", "129600").assumed(t)
	role := s.stsCall(first, assume("jobs/etl", "ab")...).assumed(t)
	through := s.stsCall(user.keys(), assume("jobs/etl", "ab")...).assumed(t)
	chained := s.stsCall(through.keys(), assume("next", "ab")...).assumed(t)
	sessions := map[string]aws.Credentials{"GetSessionToken": user.keys(), "AssumeRole": role.keys(),
		"AssumeRole through GetSessionToken": through.keys(), "a chain of roles": chained.keys()}
	for _, row := range []struct {
		name   string
		change func(ana, bob *directory.UserSpec)
		stands bool
	}{
		{"nothing changed", nil, true},
		{"another key was removed", func(ana, _ *directory.UserSpec) { ana.AccessKeys = ana.AccessKeys[:1] }, true},
		{"the key was removed", func(ana, _ *directory.UserSpec) { ana.AccessKeys = ana.AccessKeys[1:] }, false},
		{"all keys were removed", func(ana, _ *directory.UserSpec) { ana.AccessKeys = nil }, false},
		{"the secret was replaced", func(ana, _ *directory.UserSpec) { ana.AccessKeys[0].Secret = keyring.Secret(secret + "2") }, false},
		{"back again", nil, true},
	} {
		s.directory = build(t, spec(row.change))
		for name, keys := range sessions {
			a := s.stsCall(keys, "Action", "GetCallerIdentity")
			if row.stands && a.status != 200 || !row.stands && (a.status != 403 || a.fault(t).Code != "InvalidClientTokenId") {
				t.Errorf("%s, %s: got %d %s, want it to stand: %t", row.name, name, a.status, a.body, row.stands)
			}
			if a := s.redshiftAs(keys, valid()...); !row.stands && a.status != 403 {
				t.Errorf("%s, %s: GetClusterCredentials: got %d %s, want 403", row.name, name, a.status, a.body)
			}
		}
	}
	// If the key moves to another user, a session of the first user ends, because it counts as
	// another key. A session of a role goes on, because it belongs to the role.
	s.directory = build(t, spec(func(ana, bob *directory.UserSpec) {
		bob.AccessKeys, ana.AccessKeys = append(bob.AccessKeys, ana.AccessKeys[0]), ana.AccessKeys[1:]
	}))
	if a := s.stsCall(user.keys(), "Action", "GetCallerIdentity"); a.status != 403 {
		t.Errorf("the key has moved to bob: got %d %s, want 403", a.status, a.body)
	}
}

// A session from an identity provider's token ends when the provider is removed from the
// configuration, and so do the sessions of roles assumed from it.
func TestSessionsEndWithTheirProvider(t *testing.T) {
	i := newIDP(t)
	provider := directory.Provider{Issuer: i.URL, Audiences: []string{"daypass"}}
	spec := func(providers ...directory.Provider) directory.Spec {
		s := withIDP(t, i)
		s.Roles[1].Trust = trust(t, `{"Effect":"Allow","Principal":{"AWS":"`+roleARN+`ci"},"Action":"sts:AssumeRole"}`)
		s.Roles[2].Inline = append(s.Roles[2].Inline, policy(t, "sts", `{"Effect":"Allow","Action":"sts:*","Resource":"*"}`))
		s.Providers = providers
		return s
	}
	s := newServer(t, spec(provider))
	session := s.do(s.request("POST", webForm("ci", i.token(t, start, nil)))).assumed(t)
	chained := s.stsCall(session.keys(), assume("next", "ab")...).assumed(t)
	for _, row := range []struct {
		name      string
		providers []directory.Provider
		status    int
	}{
		{"nothing changed", []directory.Provider{provider}, 200},
		{"removed", nil, 403},
		{"another", []directory.Provider{{Issuer: i.URL + "/other", Audiences: []string{"daypass"}}}, 403},
	} {
		s.directory = build(t, spec(row.providers...))
		for name, keys := range map[string]aws.Credentials{"the session": session.keys(), "a chain of roles": chained.keys()} {
			if a := s.stsCall(keys, "Action", "GetCallerIdentity"); a.status != row.status {
				t.Errorf("%s, %s: got %d %s, want %d", row.name, name, a.status, a.body, row.status)
			}
		}
	}
}

// A token without an origin is refused: it was sealed by an earlier version.
func TestSessionsWithoutOriginAreRefused(t *testing.T) {
	s := newServer(t, withRoles(t))
	ana, _ := s.directory.User("ana")
	etl, _ := s.directory.Role("etl")
	digest := sts.KeyOrigin(keyOf("ana"), secret)
	for name, row := range map[string]struct {
		session sts.Session
		status  int
	}{
		"a user's":                     {sts.Session{Kind: sts.UserSession, Name: "ana", PrincipalID: ana.ID}, 403},
		"a role's":                     {sts.Session{Kind: sts.RoleSession, Name: "etl", PrincipalID: etl.ID, SessionName: "ab"}, 403},
		"an empty origin":              {sts.Session{Kind: sts.RoleSession, Name: "etl", PrincipalID: etl.ID, SessionName: "ab", Origin: &sts.Origin{}}, 403},
		"a key without digest":         {sts.Session{Kind: sts.UserSession, Name: "ana", PrincipalID: ana.ID, Origin: &sts.Origin{AccessKeyID: keyOf("ana")}}, 403},
		"another user's key":           {sts.Session{Kind: sts.UserSession, Name: "ana", PrincipalID: ana.ID, Origin: sts.KeyOrigin(keyOf("bob"), secret)}, 403},
		"a user's, with its origin":    {sts.Session{Kind: sts.UserSession, Name: "ana", PrincipalID: ana.ID, Origin: digest}, 200},
		"a role's, with its origin":    {sts.Session{Kind: sts.RoleSession, Name: "etl", PrincipalID: etl.ID, SessionName: "ab", Origin: digest}, 200},
		"a kind that there is not yet": {sts.Session{Kind: 9, Name: "ana", PrincipalID: ana.ID, Origin: digest}, 403},
	} {
		row.session.Account = account
		issued, err := sts.Issue(s.keyring, start, time.Hour, &row.session)
		if err != nil {
			t.Fatal(err)
		}
		keys := aws.Credentials{AccessKeyID: issued.AccessKeyID, SecretAccessKey: issued.Secret.Reveal(), SessionToken: issued.Token.Reveal()}
		if a := s.stsCall(keys, "Action", "GetCallerIdentity"); a.status != row.status {
			t.Errorf("%s: got %d %s, want %d", name, a.status, a.body, row.status)
		}
	}
}
