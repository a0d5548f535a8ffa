//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"
)

// rawError is an ErrorResponse.
type rawError struct{ code, message string }

func (e *rawError) Error() string { return e.message + " (SQLSTATE " + e.code + ")" }

func startupMessage(parameters ...string) []byte {
	b := binary.BigEndian.AppendUint32(nil, 0)
	b = binary.BigEndian.AppendUint32(b, 3<<16)
	for _, p := range parameters {
		b = append(append(b, p...), 0)
	}
	b = append(b, 0)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

func message(kind byte, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+5))
	return append(append(b, body...), 0)
}

// readMessage reads one message from the server.
func readMessage(r io.Reader) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := int(binary.BigEndian.Uint32(head[1:])) - 4
	if size < 0 || size > 1<<20 {
		return 0, nil, fmt.Errorf("message %q of %d bytes", head[0], size)
	}
	body = make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, err
	}
	if head[0] == 'E' {
		failed := &rawError{}
		for field := range bytes.SplitSeq(body, []byte{0}) {
			if len(field) > 0 && field[0] == 'C' {
				failed.code = string(field[1:])
			} else if len(field) > 0 && field[0] == 'M' {
				failed.message = string(field[1:])
			}
		}
		return 'E', body, failed
	}
	return head[0], body, nil
}

// until reads messages up to one of a kind.
func until(r io.Reader, want byte) error {
	for {
		switch kind, _, err := readMessage(r); {
		case err != nil:
			return err
		case kind == want:
			return nil
		}
	}
}

// rawSession logs on without TLS and queries its user. At random it sends a few bytes at a time, or
// sends the password and the query before the server asks.
func rawSession(conn net.Conn, p *pass, application string, r *rand.Rand) error {
	_ = conn.SetDeadline(time.Now().Add(logonPatience))
	pieces, ahead, farewell := r.IntN(3) == 0, r.IntN(3) == 0, r.IntN(2) == 0
	send := func(b []byte) error {
		for len(b) > 0 {
			n := len(b)
			if pieces {
				n = min(n, 1+r.IntN(24))
				time.Sleep(time.Millisecond)
			}
			if _, err := conn.Write(b[:n]); err != nil {
				return err
			}
			b = b[n:]
		}
		return nil
	}
	start := startupMessage("user", p.logon, "database", database, "application_name", application)
	password, query := message('p', p.password), message('Q', "select session_user")
	var err error
	if ahead {
		err = send(append(append(start, password...), query...))
	} else if err = send(start); err == nil {
		if err = until(conn, 'R'); err == nil {
			err = send(password)
		}
	}
	if err == nil {
		err = until(conn, 'Z')
	}
	if err == nil && !ahead {
		err = send(query)
	}
	if err != nil {
		return err
	}
	for {
		kind, body, err := readMessage(conn)
		if err != nil {
			return err
		}
		if kind == 'D' && (len(body) < 6 || string(body[6:]) != p.sessionRole()) {
			return wrong("session_user is %q, want %q", body, p.sessionRole())
		}
		if kind == 'Z' {
			break
		}
	}
	if farewell {
		_, err = conn.Write([]byte{'X', 0, 0, 0, 4})
	}
	return err
}

// tryPassword tries a password over a new connection. It returns "in", a SQLSTATE, or an error
// of the connection.
func tryPassword(conn net.Conn, user, password string) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(logonPatience))
	if _, err := conn.Write(startupMessage("user", user, "database", database, "application_name", "soak-hostile")); err != nil {
		return "", err
	}
	err := until(conn, 'R')
	if err == nil {
		if _, err = conn.Write(message('p', password)); err == nil {
			err = until(conn, 'Z')
		}
	}
	if said, ok := err.(*rawError); ok {
		return said.code, nil
	}
	if err != nil {
		return "", err
	}
	return "in", nil
}
