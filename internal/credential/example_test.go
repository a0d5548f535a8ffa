package credential_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/keyring"
)

func Example() {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	keys := keyring.New(now)
	password, err := credential.Mint(keys, credential.Grant{
		ID:        credential.NewID(),
		Cluster:   "examplecluster",
		Database:  "dev",
		DBUser:    "alice",
		DBGroups:  []string{"analysts"},
		Principal: "arn:aws:iam::123456789012:user/ana",
		IssuedAt:  now,
		NotAfter:  now.Add(15 * time.Minute),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("printed by mistake:", password)

	// Public keys are all that checking needs.
	verifier := keys.Verifier()
	grant, err := credential.Check(verifier, password.Reveal(), now.Add(time.Minute))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("log on as", grant.LogonName(), "on", grant.Cluster, "until", grant.NotAfter.Format(time.TimeOnly))

	_, err = credential.Check(verifier, password.Reveal(), now.Add(time.Hour))
	fmt.Println("expired an hour later:", errors.Is(err, credential.ErrExpired))
	_, err = credential.Check(keyring.New(now).Verifier(), password.Reveal(), now)
	fmt.Println("refused with other keys:", errors.Is(err, credential.ErrUnknownKey))
	// Output:
	// printed by mistake: [redacted]
	// log on as IAM:alice on examplecluster until 12:15:00
	// expired an hour later: true
	// refused with other keys: true
}
