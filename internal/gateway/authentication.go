package gateway

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/daypass/daypass/internal/pgwire"
)

// errAuthentication is wrapped by the reasons why the gateway refuses to authenticate to a
// server that it has reached.
var errAuthentication = errors.New("the gateway does not log on")

// authentication answers the server's authentication requests. It proves that it
// has the session role's password, and makes the server prove that it has the
// verifier: SCRAM-SHA-256, with channel binding where there is TLS. It never sends
// the password, neither in clear text nor hashed: a request for that may come from a
// man in the middle, or from a server that was taken over.
type authentication struct {
	password string
	state    *tls.ConnectionState // nil: plain
	target   *target
	local    bool // the connection does not leave the machine
	scram    *pgwire.SCRAM
	step     int  // of the SCRAM exchange: how many of its messages have arrived
	done     bool // AuthenticationOk has arrived
}

func (a *authentication) answer(body []byte) ([]byte, error) {
	if len(body) < 4 || a.done {
		return nil, pgwire.ErrMalformed
	}
	switch method, rest := binary.BigEndian.Uint32(body), body[4:]; method {
	case pgwire.AuthOK: // after SCRAM, or if pg_hba.conf says trust, peer or cert
		if a.scram != nil && a.step < 3 {
			return nil, errors.New("server cut SCRAM short")
		}
		if a.scram == nil && !a.local && !a.target.verified() {
			return nil, errors.New("server lets the session role in without a password, and its certificate is not verified: " +
				"set scram-sha-256 in pg_hba.conf, or sslmode=verify-full in upstream")
		}
		a.done = true
		return nil, nil
	case pgwire.AuthCleartextPassword:
		return nil, errors.New("server asks for the session role's password in clear text: set scram-sha-256 for members of daypass_session_roles in pg_hba.conf")
	case pgwire.AuthMD5Password: // pg_hba.conf says md5, and the role has no SCRAM verifier
		return nil, fmt.Errorf("server asks for an MD5 password: %w; set scram-sha-256 for members of daypass_session_roles in pg_hba.conf", pgwire.ErrForeignVerifier)
	case pgwire.AuthSASL:
		if a.scram != nil {
			return nil, pgwire.ErrMalformed
		}
		scram, err := pgwire.NewSCRAM(pgwire.ParseMechanisms(rest), a.password, a.state, a.target.channelBinding, a.target.verified())
		if err != nil {
			return nil, err
		}
		a.scram = scram
		first := scram.First()
		answer := pgwire.AppendUint32(pgwire.AppendString(nil, scram.Mechanism), uint32(len(first)))
		return append(answer, first...), nil
	case pgwire.AuthSASLContinue:
		if a.scram == nil || a.step != 0 {
			return nil, pgwire.ErrMalformed
		}
		a.step = 1
		final, err := a.scram.Final(string(rest))
		if err != nil {
			return nil, err
		}
		a.step = 2
		return []byte(final), nil
	case pgwire.AuthSASLFinal:
		if a.scram == nil || a.step != 2 {
			return nil, pgwire.ErrMalformed
		}
		if err := a.scram.Verify(string(rest)); err != nil {
			return nil, err
		}
		a.step = 3
		return nil, nil
	default:
		return nil, fmt.Errorf("server asks for authentication method %d: set scram-sha-256 for members of daypass_session_roles in pg_hba.conf", method)
	}
}
