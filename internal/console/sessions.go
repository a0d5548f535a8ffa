package console

import (
	"encoding/xml"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/registry"
)

// listed is an element of ListSessions.
type listed struct {
	SessionId, CredentialId, Principal, ClusterIdentifier, DbName, DbUser string   //nolint:staticcheck // AWS's spelling
	DbGroups                                                              []string `xml:"DbGroups>DbGroup"`
	ApplicationName, ClientAddress, Server, State                         string
	StartedAt                                                             time.Time
	BytesFromClient, BytesToClient                                        uint64
}

// row is a session of the page.
type row struct {
	listed
	Started when
	Mine    bool
	End     bool   // the person may end it
	Revoke  string // URL of the page that can revoke credentials; empty if the person may not
}

type sessionsPage struct {
	Rows       []row
	Unanswered []string
	Next       string // address of the next page
	Cluster    string
	Some, Own  bool // of api.ConsoleRights
	Refused    *refusal
	Done       string
}

func (e *exchange) sessions() { e.showSessions("", "") }

// showSessions shows who is logged on. done, if not empty, says what was just done. ended is a
// session that was just ended; it is left out of the list, because it may take a moment to
// disappear.
func (e *exchange) showSessions(done, ended string) {
	e.title = e.sessionsName()
	page := sessionsPage{Cluster: e.text("only"), Done: done, Some: e.who.Some, Own: e.who.Own}
	parameters := url.Values{}
	if page.Cluster != "" {
		parameters.Set("ClusterIdentifier", page.Cluster)
	}
	if marker := e.text("marker"); marker != "" {
		parameters.Set("Marker", marker)
	}
	result, err := e.config.API.ConsoleCall(e.r, OfSession(e.session), "daypass", "ListSessions", parameters)
	answer, ok := e.denied(err)
	if !ok {
		return
	}
	if answer != nil {
		page.Refused = refused(answer)
		e.show(answer.Status, "sessions", page)
		return
	}
	var got struct {
		Marker     string
		Sessions   []listed `xml:"Sessions>Session"`
		Unanswered []string `xml:"Unanswered>Server"`
	}
	if err := xml.Unmarshal(result, &got); err != nil {
		e.failed(err)
		return
	}
	questions := make([]api.Question, 0, len(got.Sessions)+1)
	for _, s := range got.Sessions {
		questions = append(questions, endQuestion(&s))
	}
	may, err := e.config.API.ConsoleMay(e.r, OfSession(e.session), questions)
	if err != nil {
		e.failed(err)
		return
	}
	revoke, ok := e.revokeLinks(got.Sessions)
	if !ok {
		return
	}
	page.Unanswered = got.Unanswered
	for i, s := range got.Sessions {
		if s.SessionId == ended {
			continue
		}
		page.Rows = append(page.Rows, row{listed: s, Started: e.when(s.StartedAt), Mine: s.Principal == e.who.ARN, End: may[i], Revoke: revoke[i]})
	}
	if e.who.Own && slices.ContainsFunc(page.Rows, func(r row) bool { return !r.Mine }) {
		e.who.Own = false // the page is not only about the person's own
		e.title = e.sessionsName()
	}
	if got.Marker != "" {
		page.Next = prefix + "sessions?" + url.Values{"only": {page.Cluster}, "marker": {got.Marker}}.Encode()
	}
	e.show(http.StatusOK, "sessions", page)
}

// sessionsName returns what the page with the sessions is called.
func (e *exchange) sessionsName() string {
	if e.who.Own {
		return "My sessions"
	}
	return "Who is on"
}

func endQuestion(s *listed) api.Question {
	return api.Question{Action: "daypass:TerminateSession", Resource: "session/" + s.ClusterIdentifier + "/" + s.SessionId,
		Cluster: s.ClusterIdentifier, Principal: s.Principal}
}

// revokeLinks returns, for each session, the URL of the page that can revoke the credentials of its
// principal and its database user, as far as the person may. Otherwise it has already answered.
func (e *exchange) revokeLinks(list []listed) ([]string, bool) {
	var all []registry.Revocation
	at := map[registry.Revocation]int{}
	index := func(v registry.Revocation) int {
		i, ok := at[v]
		if !ok {
			i = len(all)
			at[v], all = i, append(all, v)
		}
		return i
	}
	type pair struct{ principal, user int }
	pairs := make([]pair, len(list))
	for i, s := range list {
		pairs[i] = pair{index(ofPrincipal(s.Principal)), index(ofUser(s.ClusterIdentifier, s.DbUser))}
	}
	may, err := e.config.API.ConsoleMayRevoke(e.r, OfSession(e.session), all)
	if err != nil {
		e.failed(err)
		return nil, false
	}
	links := make([]string, len(list))
	for i, s := range list {
		query := url.Values{}
		if s.Principal != "" && may[pairs[i].principal] {
			query.Set("principal", s.Principal)
		}
		if s.DbUser != "" && may[pairs[i].user] {
			query.Set("cluster", s.ClusterIdentifier)
			query.Set("user", s.DbUser)
		}
		if len(query) > 0 {
			links[i] = prefix + "revoke?" + query.Encode()
		}
	}
	return links, true
}

func ofPrincipal(arn string) registry.Revocation { return registry.Revocation{Principal: arn} }

func ofUser(cluster, user string) registry.Revocation {
	return registry.Revocation{Cluster: cluster, DBUser: user}
}

// confirmation is a page that asks before something is done.
type confirmation struct {
	Action  string // address of the form; empty: the page has none
	Button  string
	Facts   []field
	Hidden  []field
	Choices []choice
	Warning string
	Typed   string // the ARN that the person has typed
	Refused *refusal
}

// choice is one thing to revoke.
type choice struct{ Value, Text string }

// askEnd asks for confirmation before a session is ended. The details on the page come from the
// URL; the call itself finds the session by its identifier alone.
func (e *exchange) askEnd() {
	e.showEnd(http.StatusOK, nil)
}

func (e *exchange) showEnd(status int, r *refusal) {
	id := clip(e.text("id"), 64)
	e.show(status, "confirm", confirmation{Action: prefix + "end", Button: "End the session", Facts: []field{{"Session", id}}, Hidden: []field{{"id", id}},
		Warning: "The program that uses it gets an error, and what it has not committed is rolled back.", Refused: r})
}

// end ends a session.
func (e *exchange) end() {
	_, err := e.config.API.ConsoleCall(e.r, OfSession(e.session), "daypass", "TerminateSession", url.Values{"SessionId": {e.text("id")}})
	answer, ok := e.denied(err)
	switch {
	case !ok:
	case answer != nil:
		e.showEnd(answer.Status, refused(answer))
	default:
		e.showSessions("The session "+e.text("id")+" is ended.", e.text("id"))
	}
}

const (
	revokePrincipal = "principal"
	revokeUser      = "user"

	// missingChoice is the code of the refusal of a form in which nothing was chosen.
	missingChoice = "MissingParameter"
)

// askRevoke asks which credentials are to be revoked.
func (e *exchange) askRevoke() { e.showRevoke(http.StatusOK, nil) }

func (e *exchange) showRevoke(status int, r *refusal) {
	principal, cluster, user := clip(e.text("principal"), 2048), clip(e.text("cluster"), 100), clip(e.text("user"), 300)
	page := confirmation{Action: prefix + "revoke", Button: "Revoke", Refused: r,
		Hidden:  []field{{"principal", principal}, {"cluster", cluster}, {"user", user}},
		Warning: "Credentials that were issued until now stop working at once, on all servers, and open sessions with them end. A person who is still allowed to can ask for new ones; a revoked principal has to sign in again."}
	if e.text("typed") != "" { // into the form that asks for an ARN, which is shown again
		page.Typed, principal = principal, ""
	}
	if principal != "" || user != "" {
		may, err := e.config.API.ConsoleMayRevoke(e.r, OfSession(e.session), []registry.Revocation{ofPrincipal(principal), ofUser(cluster, user)})
		if err != nil {
			e.failed(err)
			return
		}
		if !may[0] {
			principal = ""
		}
		if !may[1] {
			user = ""
		}
		if principal == "" && user == "" && r == nil {
			e.refuse(http.StatusForbidden, "Your policies do not let you revoke these credentials.", "Ask the person who runs Daypass.")
			return
		}
	}
	if principal != "" {
		page.Choices = append(page.Choices, choice{revokePrincipal, "everything of " + principal})
	}
	if user != "" {
		page.Choices = append(page.Choices, choice{revokeUser, "the database user " + user + " of the cluster " + cluster + ", no matter who asked for it"})
	}
	if len(page.Choices) == 0 { // the form asks for an ARN
		page.Hidden = nil
		may, err := e.config.API.ConsoleMayRevokeSome(e.r, OfSession(e.session))
		switch {
		case err != nil:
			e.failed(err)
			return
		case !may && (r == nil || r.Code == missingChoice):
			e.refuse(http.StatusForbidden, "Your policies do not let you revoke anyone's credentials.", "Ask the person who runs Daypass.")
			return
		case !may:
			page.Action = ""
		}
	}
	e.show(status, "confirm", page)
}

// revoke revokes credentials.
func (e *exchange) revoke() {
	parameters := url.Values{}
	what := ""
	switch e.text("what") {
	case revokePrincipal:
		parameters.Set("Principal", e.text("principal"))
		what = e.text("principal")
	case revokeUser:
		parameters.Set("DbUser", e.text("user"))
		if cluster := e.text("cluster"); cluster != "" {
			parameters.Set("ClusterIdentifier", cluster)
		}
		what = "the database user " + e.text("user")
	default:
		e.showRevoke(http.StatusBadRequest, &refusal{Code: missingChoice, Message: "Choose what to revoke."})
		return
	}
	result, err := e.config.API.ConsoleCall(e.r, OfSession(e.session), "daypass", "RevokeCredentials", parameters)
	answer, ok := e.denied(err)
	if !ok {
		return
	}
	if answer != nil {
		e.showRevoke(answer.Status, refused(answer))
		return
	}
	var got struct {
		Sessions int
		Warnings []string `xml:"Warnings>Warning"`
	}
	if err := xml.Unmarshal(result, &got); err != nil {
		e.failed(err)
		return
	}
	done := "Revoked: " + what + "."
	for _, warning := range got.Warnings {
		done += " " + warning + "."
	}
	if what == e.who.ARN { // the person has ended their own sign-in
		e.config.SignIn.Forget(e.w, e.r)
		e.signedOut("You have revoked your own sign-in.")
		return
	}
	if !e.who.Sessions {
		e.title = "Revoked"
		e.show(http.StatusOK, "problem", problem{done, ""})
		return
	}
	e.showSessions(done, "")
}
