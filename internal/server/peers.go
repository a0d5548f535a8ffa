package server

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"syscall"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/fleet"
	"github.com/daypass/daypass/internal/gateway"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/peer"
)

// peers calls the other servers, and answers their calls.
type peers struct {
	member   *member
	identity *peer.Identity
	client   *peer.Client
	listener net.Listener
	address  string // where the other servers reach this one
	marks    marks
}

// openPeers listens for the other servers, and prepares the client that calls them.
func openPeers(cfg *config.Config, m *member, opts Options) (*peers, error) {
	p := &peers{member: m, marks: newMarks(m.roots)}
	var err error
	if p.identity, err = peer.NewIdentity(m.roots, m.fixed.ID, opts.Now); err != nil {
		return nil, cfg.Fault("peers", err)
	}
	if p.listener, err = listen(nil, cfg.Peers.Listen); err != nil {
		return nil, cfg.Fault("peers.listen", err)
	}
	if p.address, err = advertised(cfg, p.listener.Addr()); err != nil {
		p.listener.Close()
		return nil, cfg.Fault("peers.advertise", err)
	}
	p.client = peer.NewClient(p.identity, p.others)
	return p, nil
}

// advertised returns the address at which other servers reach a listener.
func advertised(cfg *config.Config, at net.Addr) (string, error) {
	if cfg.Peers.Advertise != "" {
		return cfg.Peers.Advertise, nil
	}
	host, port, err := net.SplitHostPort(at.String())
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		return at.String(), nil
	}
	// Use this machine's address on the route to etcd. Dialing UDP sends nothing.
	u, err := url.Parse(cfg.Registry.Etcd.Endpoints[0])
	if err != nil {
		return "", err
	}
	conn, err := net.Dial("udp", u.Host)
	if err != nil {
		return "", fmt.Errorf("is required here: the address from which this machine reaches etcd is not known: %w", err)
	}
	defer conn.Close()
	own, _, err := net.SplitHostPort(conn.LocalAddr().String())
	return net.JoinHostPort(own, port), err
}

// others returns the servers that can be reached, or could be until they fell silent.
func (p *peers) others() (list []peer.Peer) {
	for _, s := range p.known() {
		if s.Peers != "" {
			list = append(list, peer.Peer{ID: s.ID, Address: s.Peers})
		}
	}
	return list
}

// known returns the other servers that may have sessions. A server that is cut off from the
// registry, or was frozen, does not count as live, and its sessions go on.
func (p *peers) known() []fleet.Server {
	all := p.member.Peers()
	return slices.DeleteFunc(slices.Clone(all), func(s fleet.Server) bool {
		// Leave out this server, and servers that a later one at the same address has replaced.
		return s.ID == p.member.fixed.ID || s.Peers == p.address || s.Peers != "" && slices.ContainsFunc(all, func(other fleet.Server) bool {
			return other.Peers == s.Peers && other.Started.After(s.Started)
		})
	})
}

// live returns the other servers that announce themselves.
func (p *peers) live() []fleet.Server {
	return slices.DeleteFunc(p.member.Servers(), func(s fleet.Server) bool { return s.ID == p.member.fixed.ID })
}

// serve answers the other servers until ctx is done.
func (p *peers) serve(ctx context.Context, front *gateway.Server) error {
	defer p.client.Close()
	sessions := gatewaySessions{server: front, member: p.member}
	return peer.Serve(ctx, p.listener, p.identity, peer.Service{
		Sessions: func(id string) any {
			list := sessions.List()
			if id != "" {
				list = slices.DeleteFunc(list, func(s *api.Session) bool { return s.ID != id })
			}
			return list
		},
		Kill:   front.Kill,
		Cancel: front.CancelFromPeer,
	})
}

// sessions asks the other servers for their sessions. A server without a listener for peers
// counts as unanswered.
func (p *peers) sessions(ctx context.Context, id string) (list []*api.Session, unanswered []string) {
	failed := p.client.Sessions(ctx, id, func(server string, answer []byte) error {
		var some []*api.Session
		if err := json.Unmarshal(answer, &some); err != nil {
			return err
		}
		for _, s := range some {
			if s == nil {
				return fmt.Errorf("%s answered nonsense", server)
			}
			s.Server = server // not what the server claims
		}
		list = append(list, some...)
		return nil
	})
	for _, s := range p.live() {
		if s.Peers == "" && !starting(s) {
			unanswered = append(unanswered, s.ID)
		}
	}
	unanswered = append(unanswered, p.missing(failed)...)
	slices.Sort(unanswered)
	return list, unanswered
}

// starting reports whether a server does not serve yet, and has no sessions.
func starting(s fleet.Server) bool { return s.Config == "" }

// missing returns the servers that may have sessions although asking them failed.
func (p *peers) missing(failed map[string]error) (names []string) {
	ended := func(err error) bool {
		return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)
	}
	for _, err := range failed {
		if ended(err) { // it may have left just now
			p.member.Await()
			break
		}
	}
	live := p.live()
	for id, err := range failed {
		// Nothing listens there any more, so the process has ended, and its sessions with it. A
		// server that announces itself may be about to listen, unless it is about to end.
		if ended(err) && !slices.ContainsFunc(live, func(s fleet.Server) bool { return s.ID == id && !s.Leaving }) {
			continue
		}
		if slices.ContainsFunc(live, func(s fleet.Server) bool { return s.ID == id && starting(s) }) {
			continue
		}
		names = append(names, id)
	}
	return names
}

// cancelElsewhere passes a cancel request on to the servers that may have issued its key.
func (p *peers) cancelElsewhere(request []byte) bool {
	of := p.marks.of(request[4:])
	may := map[string]bool{}
	for _, s := range p.known() {
		may[s.ID] = slices.Contains(of, s.Mark)
	}
	return p.client.Cancel(context.Background(), request, func(p peer.Peer) bool { return may[p.ID] })
}

// marks recognise which server issued a cancel key. In the keys that a server issues, the
// first four bytes, encrypted under a key that all servers derive from the root key, begin
// with the server's mark. To strangers the keys look random and reveal nothing.
type marks []cipher.Block

func newMarks(roots *keyring.Roots) (m marks) {
	for _, key := range roots.Derive("cancel keys") {
		block, err := aes.NewCipher(key[:])
		if err != nil {
			panic("internal error: aes: " + err.Error())
		}
		m = append(m, block)
	}
	return m
}

// of returns the marks that a key has under each of the root keys.
func (m marks) of(key []byte) (list []byte) {
	for _, block := range m {
		list = append(list, mark(block, key))
	}
	return list
}

func mark(block cipher.Block, key []byte) byte {
	var b [aes.BlockSize]byte
	copy(b[:], key[:4])
	block.Encrypt(b[:], b[:])
	return b[0]
}

// is reports whether a key has this server's mark.
func (p *peers) is(key []byte) bool { return mark(p.marks[0], key) == p.member.fixed.Mark }
