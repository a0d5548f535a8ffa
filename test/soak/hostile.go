//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// hostile is everything that must not harm honest clients: strangers, operators, and holders who
// damage their own roles. None of it excuses an error.
type hostile struct {
	*load
	binary string
}

func (h *hostile) run(ctx context.Context) {
	var all sync.WaitGroup
	for name, actor := range map[string]func(context.Context, *mathrand.Rand){
		"forger": h.forger, "garbage": h.garbage, "flood": h.flood, "loris": h.loris, "api": h.apiAbuse,
		"reloads": h.reloads, "rotations": h.rotations, "victims": h.victims, "holders": h.holders, "expiry": h.expiry,
		"revocations": h.revocations, "chatter": h.chatter, "rebels": h.rebels, "other rebels": h.rebels, "lenders": h.lenders,
		"evictions": h.evictions, "departures": h.departures, "landlord": h.landlord,
	} {
		all.Go(func() { actor(ctx, random(h.seed, name)) })
	}
	all.Wait()
}

// stranger connects to the gateway directly from one of many loopback addresses.
func (h *hostile) stranger(ctx context.Context, r *mathrand.Rand) (net.Conn, error) {
	from := net.IPv4(127, 0, byte(1+r.IntN(3)), byte(1+r.IntN(250)))
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: 5 * time.Second}
	return dialer.DialContext(ctx, "tcp", h.stack.Gateway)
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// forge changes one thing about a valid password or its user.
func forge(r *mathrand.Rand, p *pass) (user, password, how string) {
	user, password = p.logon, p.password
	at := r.IntN(len(password))
	switch r.IntN(8) {
	case 0:
		other := alphabet[(strings.IndexByte(alphabet, password[at])+1+r.IntN(63))%64]
		return user, password[:at] + string(other) + password[at+1:], "one letter changed"
	case 1: // the last letter has bits that a lax decoder ignores
		last := len(password) - 1
		other := alphabet[strings.IndexByte(alphabet, password[last])^1]
		return user, password[:last] + string(other), "last bit changed"
	case 2:
		return user, password[:at], "cut short"
	case 3:
		return user, password + string(alphabet[r.IntN(64)]), "one letter more"
	case 4:
		return user, password + "=", "padded"
	case 5:
		return "IAM:" + userName(r.IntN(users)) + "x", password, "another user"
	case 6:
		return "postgres", password, "superuser"
	default:
		return user, rand.Text(), "made up"
	}
}

func (h *hostile) forger(ctx context.Context, r *mathrand.Rand) {
	for pause(ctx, between(r, 300*time.Millisecond, 2*time.Second)) {
		p := h.issuer.issue(ctx, someone(r))
		if p == nil {
			continue
		}
		user, password, how := forge(r, p)
		if len(password) > 60 {
			h.issuer.also(password)
		}
		begin := time.Now()
		conn, err := h.stranger(ctx, r)
		outcome := ""
		if err == nil {
			outcome, err = tryPassword(conn, user, password)
			conn.Close()
		}
		switch {
		case ctx.Err() != nil:
		case outcome == "in":
			h.ledger.violate("a forged password let somebody in", "%s: %s", how, user)
		case outcome == "28000":
			h.ledger.done(classCall, "forged passwords refused", begin)
		default:
			h.ledger.failed(classLogon, "the refusal of a forged password ("+how+")", begin, fmt.Errorf("outcome %q: %v", outcome, err))
		}
	}
}

// garbage sends bytes that are not a logon.
func (h *hostile) garbage(ctx context.Context, r *mathrand.Rand) {
	for pause(ctx, between(r, time.Second, 5*time.Second)) {
		for range 1 + r.IntN(20) {
			conn, err := h.stranger(ctx, r)
			if err != nil {
				break
			}
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			junk := make([]byte, 1+r.IntN(20000))
			rand.Read(junk)
			ssl := []byte{0, 0, 0, 8, 4, 210, 22, 47}
			switch r.IntN(7) {
			case 0: // unchanged
			case 1:
				junk = append([]byte{0, 0, 0, 8, 4, 210, 22, 46}, junk...) // a cancel request cut short
			case 2:
				junk = append(ssl, junk...)
			case 3: // a TLS handshake that goes no further
				conn.Write(ssl)
				tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}).Handshake()
			case 4: // a start-up message with the greatest length, and more
				junk = append([]byte{0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0}, junk...)
			case 5:
				junk = []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			case 6: // a password message that never ends
				junk = append(startupMessage("user", "IAM:u00"), 'p', 0x7f, 0xff, 0xff, 0xff)
			}
			conn.Write(junk)
			if r.IntN(2) == 0 {
				conn.Read(junk)
			}
			if r.IntN(2) == 0 {
				reset(conn.(*net.TCPConn))
			}
			conn.Close()
			h.ledger.count("garbage connections", 1)
		}
	}
}

// flood opens many connections that never say anything.
func (h *hostile) flood(ctx context.Context, r *mathrand.Rand) {
	for pause(ctx, between(r, 20*time.Second, time.Minute)) {
		var conns []net.Conn
		for range 200 + r.IntN(1500) {
			conn, err := h.stranger(ctx, r)
			if err != nil {
				break
			}
			conns = append(conns, conn)
		}
		h.ledger.count("half-open connections of floods", len(conns))
		h.ledger.count("floods", 1)
		pause(ctx, between(r, 2*time.Second, 12*time.Second))
		for _, conn := range conns {
			conn.Close()
		}
	}
}

// loris sends very little, very slowly.
func (h *hostile) loris(ctx context.Context, r *mathrand.Rand) {
	var all sync.WaitGroup
	defer all.Wait()
	for pause(ctx, between(r, time.Second, 6*time.Second)) {
		conn, err := h.stranger(ctx, r)
		if err != nil {
			continue
		}
		h.ledger.count("slow-loris connections", 1)
		script := append(startupMessage("user", "IAM:u00", "database", database), message('p', strings.Repeat("x", 300))...)
		if r.IntN(2) == 0 {
			script = append([]byte{0, 0, 0, 8, 4, 210, 22, 47}, bytes.Repeat([]byte{22, 3, 1}, 200)...)
		}
		all.Go(func() {
			defer conn.Close()
			for i := range script {
				if !pause(ctx, 300*time.Millisecond) {
					return
				}
				if _, err := conn.Write(script[i : i+1]); err != nil {
					return
				}
			}
		})
	}
}

// apiAbuse asks for credentials that must be refused, and sends requests that are not calls.
func (h *hostile) apiAbuse(ctx context.Context, r *mathrand.Rand) {
	client := &http.Client{Timeout: 5 * time.Second}
	for pause(ctx, between(r, 2*time.Second, 6*time.Second)) {
		switch r.IntN(5) {
		case 0:
			h.issuer.refused(ctx, h.issuer.weak, wish{user: userName(1 + r.IntN(users-1))}, "AccessDenied")
		case 1:
			h.issuer.refused(ctx, h.issuer.weak, wish{user: "u00", groups: []string{"g0"}}, "AccessDenied")
		case 2:
			h.issuer.refused(ctx, h.issuer.client, wish{user: "select"}, "InvalidParameterValue")
		case 3:
			body := make([]byte, r.IntN(3<<20))
			rand.Read(body)
			answer, err := client.Post("http://"+h.stack.API+"/", "application/x-www-form-urlencoded", bytes.NewReader(body))
			if err == nil {
				if answer.StatusCode < 400 {
					h.ledger.violate("the API took garbage", "%d bytes: %s", len(body), answer.Status)
				}
				answer.Body.Close()
			}
			h.ledger.count("garbage calls", 1)
		case 4:
			if conn, err := net.Dial("tcp", h.stack.API); err == nil {
				fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nAction=")
				h.ledger.count("calls that never end", 1)
				time.AfterFunc(time.Minute, func() { conn.Close() })
			}
		}
	}
	client.CloseIdleConnections()
}

// reloads changes the configuration on SIGHUP, sometimes to an invalid one.
func (h *hostile) reloads(ctx context.Context, r *mathrand.Rand) {
	s := h.stack
	for pause(ctx, between(r, 5*time.Second, 25*time.Second)) {
		s.config.Lock()
		faulty := []string{"\nclusters: [", "\nunknown: key\n", "}}}}", "\x00"}
		if r.IntN(2) == 0 {
			err := s.writeConfig(faulty[r.IntN(len(faulty))])
			s.signal(syscall.SIGHUP)
			pause(ctx, between(r, 50*time.Millisecond, 500*time.Millisecond))
			if err = errors.Join(err, s.writeConfig("")); err != nil {
				h.ledger.violate("soak", "writing the configuration: %v", err)
			}
			h.ledger.count("faulty reloads", 1)
			s.config.Unlock()
			continue
		}
		s.extra = !s.extra
		if err := s.writeConfig(""); err != nil {
			h.ledger.violate("soak", "writing the configuration: %v", err)
		}
		extra, begin := s.extra, time.Now()
		s.signal(syscall.SIGHUP)
		s.config.Unlock()
		h.ledger.count("reloads", 1)
		for {
			_, code, err := h.issuer.call(ctx, h.issuer.passing, wish{user: "u00"})
			if ctx.Err() != nil {
				return
			}
			if (err == nil) == extra && (err == nil || code == "InvalidClientTokenId") {
				h.ledger.done(classCall, "reloads in force within 5 s", begin)
				break
			}
			if time.Since(begin) > 5*time.Second {
				h.ledger.failed(classCall, "reload", begin, fmt.Errorf("not in force after 5 s: eve configured %v, code %q, error %v", extra, code, err))
				break
			}
			pause(ctx, 100*time.Millisecond)
		}
	}
}

// rotations rotates the keys. Credentials issued before must keep working.
func (h *hostile) rotations(ctx context.Context, r *mathrand.Rand) {
	for pause(ctx, between(r, 30*time.Second, 3*time.Minute)) {
		before := h.issuer.issue(ctx, wish{user: userName(r.IntN(users))})
		if out, err := exec.CommandContext(ctx, h.binary, "keys", "rotate", "--data", h.stack.Path("data")).CombinedOutput(); err != nil && ctx.Err() == nil {
			h.ledger.violate("keys rotate failed", "%v: %s", err, out)
			continue
		}
		h.ledger.count("key rotations", 1)
		if !pause(ctx, between(r, 0, 3*time.Second)) || before == nil {
			continue
		}
		if s := h.gate.logon(ctx, before, true, pgx.QueryExecModeExec); s != nil {
			h.ledger.count("logons with a key that was rotated away", 1)
			s.leave(false)
		}
	}
}

// expiry uses credentials just before they expire and just after.
func (h *hostile) expiry(ctx context.Context, r *mathrand.Rand) {
	var all sync.WaitGroup
	defer all.Wait()
	for pause(ctx, between(r, 20*time.Second, time.Minute)) {
		p := h.issuer.issue(ctx, wish{user: userName(r.IntN(users))})
		if p == nil {
			continue
		}
		all.Go(func() {
			if !pause(ctx, time.Until(p.expires)-3*time.Second) {
				return
			}
			if s := h.gate.logon(ctx, p, false, pgx.QueryExecModeExec); s != nil {
				h.ledger.count("logons in the last seconds of a credential", 1)
				s.leave(false)
			}
			if !pause(ctx, time.Until(p.expires)+time.Millisecond) {
				return
			}
			begin := time.Now()
			conn, _, err := h.gate.connect(ctx, p, false, pgx.QueryExecModeExec)
			switch {
			case err == nil:
				conn.Close(ctx)
				h.ledger.violate("an expired credential let somebody in", "%s, expired %v", p.logon, p.expires)
			case strings.Contains(err.Error(), "IAM Authentication token has expired"):
				h.ledger.done(classCall, "expired credentials refused", begin)
			default:
				h.ledger.failed(classLogon, "the refusal of an expired credential", begin, err)
			}
		})
	}
}
