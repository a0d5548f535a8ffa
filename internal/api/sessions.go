package api

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/audit"
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/registry"
)

// Session is one logged-on session, as the gateway describes it.
type Session struct {
	ID           string
	CredentialID string
	Principal    string
	Cluster      string
	Database     string
	DBUser       string
	DBGroups     []string
	SessionRole  string
	Application  string
	Client       netip.AddrPort
	TLS          bool
	PID          uint32 // of the upstream's process
	Started      time.Time
	IssuedAt     time.Time // of the credential
	NotAfter     time.Time // of the credential

	Server          string // name of the server that has it; empty if there is only one server
	State           string
	BytesFromClient uint64
	BytesToClient   uint64
}

func (s *Session) credential() registry.Credential {
	return registry.Credential{ID: s.CredentialID, Principal: s.Principal, Cluster: s.Cluster, DBUser: s.DBUser, IssuedAt: s.IssuedAt}
}

// Sessions lists and ends the gateway's sessions. Safe for concurrent use.
type Sessions interface {
	List() []*Session // at this server
	// Elsewhere lists the sessions at the other servers: all, or the one with this
	// identifier. unanswered names the servers that did not answer in time.
	Elsewhere(ctx context.Context, id string) (list []*Session, unanswered []string)
	// Kill ends a session, on any server, and reports whether it exists.
	Kill(id string) bool
}

// listSessions lists the open sessions, the oldest first.
type listSessions struct {
	cluster string // empty: all
	dbUser  string
	marker  string
	target  target
	some    bool // only the sessions of some principals, such as the caller's own
}

func readListSessions(r *reader) *listSessions {
	p := &listSessions{cluster: r.text("ClusterIdentifier").value, dbUser: r.text("DbUser").value, marker: readMarker(r)}
	if p.cluster != "" {
		p.target = r.cluster(p.cluster)
	}
	return p
}

func (p *listSessions) needs(c *call) []check {
	k := c.mayList(&p.target, cmp.Or(p.cluster, "*"))
	p.some = k.someKey != ""
	return []check{k}
}

func (p *listSessions) act(c *call) (awsquery.Result, error) {
	page, err := readPage(c, p.marker)
	if err != nil {
		return nil, err
	}
	list := c.handler.config.Sessions.List()
	others, unanswered, err := c.sessionsElsewhere("")
	if err != nil {
		return nil, err
	}
	list = append(list, others...)
	// A cluster that was removed from the configuration may still have sessions.
	if p.target.err != nil && !slices.ContainsFunc(list, func(s *Session) bool { return s.Cluster == p.cluster }) {
		return nil, p.target.err
	}
	// A caller sees the sessions that policies allow: those of some clusters, or their own.
	type group struct{ cluster, principal string }
	visible := map[group]bool{}
	ask := c.ask()
	list = slices.DeleteFunc(list, func(s *Session) bool {
		if p.cluster != "" && s.Cluster != p.cluster || p.dbUser != "" && s.DBUser != p.dbUser {
			return true
		}
		of := group{s.Cluster, s.Principal}
		may, asked := visible[of]
		if !asked {
			cluster := c.cluster(s.Cluster)
			k := cluster.check("daypass:ListSessions", c.own("cluster/"+s.Cluster), ownerKeys(c.directory, s.Principal))
			may = ask.decide(&k).Allowed()
			visible[of] = may
		}
		return !may
	})
	if p.some && len(unanswered) > 0 {
		unanswered = []string{unnamed(len(unanswered))}
	}
	list, marker := pageOf(page, list, func(s *Session) string { return sortableTime(s.Started) + s.ID })
	return awsquery.ResultFunc(func(e *awsquery.Encoder) {
		if marker != "" {
			e.String("Marker", marker)
		}
		awsquery.List(e, "Sessions", "Session", list, encodeSession)
		if len(unanswered) > 0 {
			e.Strings("Unanswered", "Server", unanswered)
		}
	}), nil
}

// unnamed tells how many servers did not answer, to callers who may know that their list is not whole
// but not which servers there are.
func unnamed(servers int) string {
	if servers == 1 {
		return "another server"
	}
	return strconv.Itoa(servers) + " other servers"
}

func encodeSession(e *awsquery.Encoder, s *Session) {
	e.String("SessionId", s.ID)
	e.String("CredentialId", s.CredentialID)
	e.String("Principal", s.Principal)
	e.String("ClusterIdentifier", s.Cluster)
	e.String("DbName", s.Database)
	e.String("DbUser", s.DBUser)
	e.Strings("DbGroups", "DbGroup", s.DBGroups)
	e.String("SessionRole", s.SessionRole)
	e.String("ApplicationName", s.Application)
	if s.Client.IsValid() {
		e.String("ClientAddress", s.Client.String())
	}
	e.Bool("TLS", s.TLS)
	e.Int("ProcessId", int(s.PID))
	e.Time("StartedAt", s.Started)
	if !s.NotAfter.IsZero() { // prewarmed sessions have no credential
		e.Time("Expiration", s.NotAfter)
	}
	if s.Server != "" {
		e.String("Server", s.Server)
	}
	e.String("State", s.State)
	e.Int("BytesFromClient", int(s.BytesFromClient))
	e.Int("BytesToClient", int(s.BytesToClient))
}

// terminateSession ends one session, as pg_terminate_backend does.
type terminateSession struct {
	id      string
	session *Session // nil if it does not exist
	// unanswered are the servers that did not answer and may have the session.
	unanswered []string
}

func readTerminateSession(r *reader) *terminateSession {
	p := &terminateSession{id: r.required("SessionId")}
	list := r.handler.config.Sessions.List()
	named := func(s *Session) bool { return s.ID == p.id }
	at := slices.IndexFunc(list, named)
	if at < 0 && r.err == nil {
		var err error
		if list, p.unanswered, err = r.sessionsElsewhere(p.id); err != nil {
			r.fail(err)
		}
		at = slices.IndexFunc(list, named)
	}
	if at >= 0 {
		p.session = list[at]
	}
	return p
}

// needs returns the check on the session in its cluster. A session that does not exist is checked
// in all clusters, so that only a caller who may end it in each of them learns that it does not
// exist. The refusal is the same in both cases.
func (p *terminateSession) needs(c *call) []check {
	const action = "daypass:TerminateSession"
	told := c.own("session/*/" + p.id)
	unknown := func() []check {
		checks := []check{{action: action, resource: told}}
		for _, cluster := range c.directory.Clusters() {
			checks = append(checks, check{action: action, resource: c.own("session/" + cluster.Identifier + "/" + p.id),
				tags: &cluster.Tags, told: told, wider: true})
		}
		return checks
	}
	if p.session == nil {
		return unknown()
	}
	of := c.cluster(p.session.Cluster)
	k := of.check(action, c.own("session/"+p.session.Cluster+"/"+p.id), ownerKeys(c.directory, p.session.Principal))
	k.told, k.unknown = told, unknown
	return []check{k}
}

func (p *terminateSession) act(c *call) (awsquery.Result, error) {
	c.leave() // another server may have the session
	if p.session == nil || !c.handler.config.Sessions.Kill(p.id) {
		message := "There is no such session at this gateway: it has ended, or the identifier is wrong. ListSessions (daypass sessions) lists those that are open."
		if len(p.unanswered) > 0 {
			message += " These servers did not answer, and may have it: " + strings.Join(p.unanswered, ", ") + "."
		}
		return nil, &awsquery.Error{Code: "SessionNotFound", Status: http.StatusNotFound, Message: message}
	}
	c.taken, c.credentialID = true, p.session.CredentialID
	c.response = []audit.Field{audit.String("dbUser", p.session.DBUser), audit.String("clusterIdentifier", p.session.Cluster)}
	return awsquery.ResultFunc(func(e *awsquery.Encoder) { e.String("SessionId", p.id) }), nil
}
