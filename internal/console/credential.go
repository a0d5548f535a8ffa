package console

import (
	"cmp"
	"encoding/xml"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/awsquery"
)

const (
	asUser     = "user"
	asIdentity = "identity"
)

// credentialForm is the form for a credential.
type credentialForm struct {
	Cluster, User, Database, Groups, As string
	Minutes                             int
	Create                              bool

	Offers   []api.Offer // for suggestions
	Identity string      // IAMR:role, if the person may ask for it somewhere
	Refused  *refusal
}

// Durations returns the choices, in minutes.
func (credentialForm) Durations() []int { return []int{15, 30, 45, 60} }

// ClusterNames returns the suggestions for the cluster.
func (f credentialForm) ClusterNames() (names []string) {
	for _, o := range f.Offers {
		names = append(names, o.Cluster)
	}
	return names
}

// Users returns the suggestions for the database user. They and the other suggestions are those
// of the chosen cluster, or of all clusters if none is chosen.
func (f credentialForm) Users() []string {
	return f.names(func(o api.Offer, add func(api.OfferedName)) {
		for _, u := range o.Users {
			add(u.OfferedName)
		}
	})
}

// Databases returns the suggestions for the database.
func (f credentialForm) Databases() []string {
	return f.names(func(o api.Offer, add func(api.OfferedName)) {
		for _, u := range o.Users {
			for _, d := range u.Databases {
				add(d.OfferedName)
			}
		}
		for _, d := range o.Identity {
			add(d.OfferedName)
		}
		add(api.OfferedName{Name: o.Database})
	})
}

// GroupNames returns the groups that the person may join.
func (f credentialForm) GroupNames() []string {
	return f.names(func(o api.Offer, add func(api.OfferedName)) {
		for _, g := range o.Groups {
			add(g)
		}
	})
}

func (f credentialForm) names(each func(o api.Offer, add func(api.OfferedName))) (names []string) {
	seen := map[string]bool{"": true}
	for _, o := range f.Offers {
		if f.Cluster != "" && o.Cluster != f.Cluster {
			continue
		}
		each(o, func(n api.OfferedName) {
			if !n.Pattern && !seen[n.Name] {
				seen[n.Name] = true
				names = append(names, n.Name)
			}
		})
	}
	return names
}

// refusal is why the API refused a call.
type refusal struct {
	Code, Message string
	Explain       string // address of the page that explains it
	Field         string // the form field that it is about, if the message does not name a parameter
}

func (e *exchange) readCredentialForm() credentialForm {
	f := credentialForm{
		Cluster: clip(e.text("cluster"), 100), User: clip(e.text("user"), 300), Database: clip(e.text("database"), 300),
		Groups: clip(e.text("groups"), 3000), As: asUser, Create: e.text("create") != "",
	}
	if e.text("as") == asIdentity {
		f.As = asIdentity
	}
	f.Minutes, _ = strconv.Atoi(e.text("minutes"))
	if f.Minutes == 0 {
		f.Minutes = 15
	}
	return f
}

// call returns the API's call for the form.
func (f *credentialForm) call() (action string, parameters url.Values) {
	parameters = url.Values{"ClusterIdentifier": {f.Cluster}, "DurationSeconds": {strconv.Itoa(f.Minutes * 60)}}
	if f.Database != "" {
		parameters.Set("DbName", f.Database)
	}
	if f.As == asIdentity {
		return "GetClusterCredentialsWithIAM", parameters
	}
	parameters.Set("DbUser", f.User)
	if f.Create {
		parameters.Set("AutoCreate", "true")
	}
	for i, group := range groupNames(f.Groups) {
		parameters.Set("DbGroups.DbGroup."+strconv.Itoa(i+1), group)
	}
	return "GetClusterCredentials", parameters
}

// groupNames splits a list of groups that a person has typed.
func groupNames(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' || r == '\r' || r == '\t' })
}

// query returns the form as the query string of a URL.
func (f *credentialForm) query() string {
	q := url.Values{"cluster": {f.Cluster}, "user": {f.User}, "database": {f.Database}, "groups": {f.Groups}, "as": {f.As}, "minutes": {strconv.Itoa(f.Minutes)}}
	if f.Create {
		q.Set("create", "on")
	}
	return q.Encode()
}

func (e *exchange) askCredential() {
	f := e.readCredentialForm()
	e.showCredentialForm(http.StatusOK, f)
}

func (e *exchange) showCredentialForm(status int, f credentialForm) {
	offers, _, err := e.config.API.Offers(e.r, OfSession(e.session))
	if err != nil {
		e.failed(err)
		return
	}
	f.Offers = offers
	if f.Cluster == "" && len(offers) == 1 {
		f.Cluster = offers[0].Cluster
	}
	for _, o := range offers {
		if len(o.Identity) > 0 {
			f.Identity = o.IdentityUser
		}
	}
	e.show(status, "ask", f)
}

// credential asks for a credential, and shows it.
func (e *exchange) credential() {
	f := e.readCredentialForm()
	action, parameters := f.call()
	result, err := e.config.API.ConsoleCall(e.r, OfSession(e.session), "redshift", action, parameters)
	answer, ok := e.denied(err)
	switch {
	case !ok:
		return
	case answer != nil:
		f.Refused = refused(answer)
		if answer.Code == "AccessDenied" {
			f.Refused.Explain = prefix + "explain?" + f.query()
		}
		e.showCredentialForm(answer.Status, f)
		return
	}
	var got struct {
		DbUser, DbPassword string
		Expiration         time.Time
	}
	if err := xml.Unmarshal(result, &got); err != nil {
		e.failed(err)
		return
	}
	cluster, ok := e.config.Directory().Cluster(f.Cluster)
	if !ok {
		e.refuse(http.StatusNotFound, "The cluster was removed from the configuration just now.", "")
		return
	}
	l := logon{Host: cluster.Host, Port: cluster.Port, Database: cmp.Or(f.Database, cluster.Database), User: got.DbUser, password: got.DbPassword, ownCA: e.config.Authority() != nil}
	e.title = "Your credential"
	e.show(http.StatusOK, "credential", credentialPage{
		logon: l, Cluster: f.Cluster, Groups: groupNames(f.Groups), AnyDatabase: f.Database == "",
		Expires: e.when(got.Expiration), Tools: l.tools(), OwnCA: l.ownCA,
	})
}

func refused(answer *awsquery.Error) *refusal {
	return &refusal{Code: answer.Code, Message: answer.Message}
}

// credentialPage shows a credential.
type credentialPage struct {
	logon
	Cluster     string
	Groups      []string
	AnyDatabase bool
	Expires     when
	Tools       []tool
	OwnCA       bool
}

// Password returns the password, for the template.
func (p credentialPage) Password() string { return p.password }
