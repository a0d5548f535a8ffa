package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// copyRow is the length of a row of COPY, without its newline.
const copyRow = 1000

// copies streams rows out of the server or into it. One unit is a gigabyte, the rate is in MB/s.
// The client only reads message headers.
func copies(o options, into bool, to login) func(context.Context, cpuTime) (measurement, error) {
	return func(ctx context.Context, spent cpuTime) (measurement, error) {
		config, err := to.config()
		if err != nil {
			return measurement{}, err
		}
		pg, err := open(config)
		if err != nil {
			return measurement{}, err
		}
		rows := o.megabytes * 1_000_000 / (copyRow + 1)
		query := fmt.Sprintf("COPY (SELECT repeat('x', %d) FROM generate_series(1, %d)) TO STDOUT", copyRow, rows)
		if into {
			if _, err := pg.Exec(ctx, "CREATE TEMP TABLE copied (t text)").ReadAll(); err != nil {
				return measurement{}, errors.Join(err, pg.Close(ctx))
			}
			query = "COPY copied FROM STDIN WHERE false" // the server parses the rows and discards them
		}
		before := spent.now()
		moved, took, err := stream(pg, query, rows, into)
		if err != nil {
			return measurement{}, err
		}
		return measurement{rate: float64(moved) / 1e6 / took.Seconds(), cpu: time.Duration(float64(spent.now()-before) / (float64(moved) / 1e9))}, nil
	}
}

// stream runs a COPY on the bare connection, and closes it.
func stream(pg *pgconn.PgConn, query string, rows int, into bool) (moved int, took time.Duration, err error) {
	hijacked, err := pg.Hijack()
	if err != nil {
		return 0, 0, err
	}
	conn := hijacked.Conn
	defer func() {
		if _, byeErr := conn.Write([]byte{'X', 0, 0, 0, 4}); err == nil {
			err = byeErr
		}
		conn.Close()
	}()
	began := time.Now()
	if _, err := conn.Write(message('Q', append([]byte(query), 0))); err != nil {
		return 0, 0, err
	}
	w := walker{conn: conn, buf: make([]byte, 256<<10)}
	if into {
		if err := w.until('G'); err != nil {
			return 0, 0, err
		}
		const lines = 32
		chunk := message('d', bytes.Repeat(append(bytes.Repeat([]byte("x"), copyRow), '\n'), lines))
		for sent := 0; sent < rows; sent += lines {
			if _, err := conn.Write(chunk); err != nil {
				return 0, 0, err
			}
			moved += len(chunk)
		}
		if _, err := conn.Write(message('c', nil)); err != nil {
			return 0, 0, err
		}
	}
	if err := w.until('Z'); err != nil {
		return 0, 0, err
	}
	return moved + w.total, time.Since(began), nil
}

func message(kind byte, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4)), body...)
}

// walker steps over messages by their lengths.
type walker struct {
	conn  net.Conn
	buf   []byte
	r, n  int
	total int
}

func (w *walker) fill() error {
	n, err := w.conn.Read(w.buf)
	w.r, w.n = 0, n
	w.total += n
	if n > 0 {
		return nil
	}
	return err
}

// until reads up to and including a message of the kind.
func (w *walker) until(kind byte) error {
	for {
		var head [5]byte
		for i := range head {
			if w.r == w.n {
				if err := w.fill(); err != nil {
					return err
				}
			}
			head[i] = w.buf[w.r]
			w.r++
		}
		for left := int(binary.BigEndian.Uint32(head[1:])) - 4; left > 0; {
			if w.r == w.n {
				if err := w.fill(); err != nil {
					return err
				}
			}
			k := min(left, w.n-w.r)
			w.r += k
			left -= k
		}
		switch head[0] {
		case 'E':
			return errors.New("the server broke the COPY off")
		case kind:
			return nil
		}
	}
}
