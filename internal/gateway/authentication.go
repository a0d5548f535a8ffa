package gateway

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
)

// errAuthentication is wrapped by what keeps the gateway from logging on at a
// server that it has reached.
var errAuthentication = errors.New("the gateway does not log on")

// errPasswordNotOurs is a session role whose verifier is not the one that the
// gateway has set: its holder has changed it, and it has to be set anew.
var errPasswordNotOurs = errors.New("the session role has a password that is not the gateway's")

// authentication answers the server's authentication requests. It proves that it
// has the session role's password, and wants the server to prove that it has the
// verifier: SCRAM-SHA-256, with channel binding where there is TLS. It never gives
// the password away, neither in clear text nor hashed: whoever asks for that may
// sit between the gateway and the server, or be a server that was taken over.
type authentication struct {
	password string
	state    *tls.ConnectionState // nil: plain
	target   *target
	local    bool // the connection does not leave the machine
	scram    *scramClient
	step     int  // of the SCRAM exchange: how many of its messages have come
	done     bool // AuthenticationOk has come
}

func (a *authentication) answer(body []byte) ([]byte, error) {
	if len(body) < 4 || a.done {
		return nil, errMalformed
	}
	switch method, rest := binary.BigEndian.Uint32(body), body[4:]; method {
	case 0: // AuthenticationOk: after SCRAM, or pg_hba.conf says trust, peer or cert
		if a.scram != nil && a.step < 3 {
			return nil, errors.New("server cut SCRAM short")
		}
		if a.scram == nil && !a.local && !a.target.verified() {
			return nil, errors.New("server lets the session role in without a password, and its certificate is not verified: " +
				"set scram-sha-256 in pg_hba.conf, or sslmode=verify-full in upstream")
		}
		a.done = true
		return nil, nil
	case 3: // AuthenticationCleartextPassword
		return nil, errors.New("server asks for the session role's password in clear text: set scram-sha-256 for members of daypass_session_roles in pg_hba.conf")
	case 5: // AuthenticationMD5Password: so says pg_hba.conf, and there is no SCRAM verifier
		return nil, fmt.Errorf("server asks for an MD5 password: %w; set scram-sha-256 for members of daypass_session_roles in pg_hba.conf", errPasswordNotOurs)
	case 10: // AuthenticationSASL
		if a.scram != nil {
			return nil, errMalformed
		}
		scram, err := newSCRAM(mechanisms(rest), a.password, a.state, a.target.channelBinding, a.target.verified())
		if err != nil {
			return nil, err
		}
		a.scram = scram
		first := scram.first()
		answer := appendUint32(appendString(nil, scram.mechanism), uint32(len(first)))
		return append(answer, first...), nil
	case 11: // AuthenticationSASLContinue
		if a.scram == nil || a.step != 0 {
			return nil, errMalformed
		}
		a.step = 1
		final, err := a.scram.final(string(rest))
		if err != nil {
			return nil, err
		}
		a.step = 2
		return []byte(final), nil
	case 12: // AuthenticationSASLFinal
		if a.scram == nil || a.step != 2 {
			return nil, errMalformed
		}
		if err := a.scram.verify(string(rest)); err != nil {
			return nil, err
		}
		a.step = 3
		return nil, nil
	default:
		return nil, fmt.Errorf("server asks for authentication method %d: set scram-sha-256 for members of daypass_session_roles in pg_hba.conf", method)
	}
}
