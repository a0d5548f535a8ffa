package pgtest

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/postgres"
)

// verifier returns what PostgreSQL stores for a password (RFC 5803), with one iteration. For the
// usual 4096 a client takes 30 ms under the race detector, and tests log on thousands of times.
func verifier(password string) (string, error) {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	salted, err := pbkdf2.Key(sha256.New, password, salt, 1, sha256.Size)
	if err != nil {
		return "", err
	}
	client := sha256.Sum256(mac(salted, "Client Key"))
	text := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$1:%s$%s:%s", text(salt), text(client[:]), text(mac(salted, "Server Key"))), nil
}

func mac(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message))
	return h.Sum(nil)
}

// quicken has the superuser's logons take one iteration.
func quicken(ctx context.Context, p *postgres.Server) error {
	conn, err := pgx.Connect(ctx, p.ConnString(postgres.Superuser, "postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	stored, err := verifier(conn.Config().Password)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "ALTER ROLE "+Quote(postgres.Superuser)+" PASSWORD '"+stored+"'")
	return err
}
