package main

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgproto3"
)

// dummy stands in for the processes of thousands of idle sessions, which would take more memory
// than everything that is measured. It passes the administrative login's connections on to a real
// server. For every session it plays the server itself: it accepts the session role, and gives
// empty answers to queries.
type dummy struct {
	listener net.Listener
	server   string // host:port of the real one
	number   atomic.Uint32
}

func startDummy(server string) (*dummy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &dummy{listener: l, server: server}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go d.serve(conn)
		}
	}()
	return d, nil
}

func (d *dummy) stop() {
	if d != nil {
		d.listener.Close()
	}
}

func (d *dummy) serve(conn net.Conn) {
	defer conn.Close()
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 8 || size > 10000 {
		return
	}
	body := make([]byte, size-4)
	if _, err := io.ReadFull(conn, body); err != nil {
		return
	}
	if _, rest, ok := strings.Cut(string(body), "user\x00IAM:"); ok {
		user, _, _ := strings.Cut(rest, "\x00")
		d.session(conn, user)
		return
	}
	server, err := net.Dial("tcp", d.server)
	if err != nil {
		return
	}
	defer server.Close()
	if _, err := server.Write(append(head[:], body...)); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(server, conn)
		server.Close()
	}()
	_, _ = io.Copy(conn, server)
}

// session plays the server of one session, without a process. The gateway asks its first session
// for the current user, and gets an answer; every other query gets an empty one.
func (d *dummy) session(conn net.Conn, user string) {
	n := d.number.Add(1)
	var greeting []byte
	for _, m := range []pgproto3.BackendMessage{
		&pgproto3.AuthenticationOk{},
		&pgproto3.ParameterStatus{Name: "server_version", Value: "15.18"},
		&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"},
		&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"},
		&pgproto3.BackendKeyData{ProcessID: 1<<24 + n, SecretKey: []byte{1, 2, 3, 4}},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
	} {
		greeting, _ = m.Encode(greeting)
	}
	if _, err := conn.Write(greeting); err != nil {
		return
	}
	empty, _ := (&pgproto3.EmptyQueryResponse{}).Encode(nil)
	empty, _ = (&pgproto3.ReadyForQuery{TxStatus: 'I'}).Encode(empty)
	var names []byte
	for range 2 {
		names, _ = (&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("current_user"), DataTypeOID: 19, DataTypeSize: 64}}}).Encode(names)
		names, _ = (&pgproto3.DataRow{Values: [][]byte{[]byte(user)}}).Encode(names)
		names, _ = (&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}).Encode(names)
	}
	names, _ = (&pgproto3.ReadyForQuery{TxStatus: 'I'}).Encode(names)
	var head [5]byte
	for {
		if _, err := io.ReadFull(conn, head[:]); err != nil || head[0] != 'Q' {
			return
		}
		var sql strings.Builder
		if _, err := io.CopyN(&sql, conn, int64(binary.BigEndian.Uint32(head[1:]))-4); err != nil {
			return
		}
		answer := empty
		if strings.Contains(sql.String(), "current_user") {
			answer = names
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}
