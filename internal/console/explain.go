package console

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/daypass/daypass/internal/api"
	"github.com/daypass/daypass/internal/iam"
)

// explainPage has the form, and the explanation of the call that the form describes.
type explainPage struct {
	credentialForm
	Asked   bool
	Allowed bool
	Checks  []checkRow
	Invalid *refusal // what the API would answer to a caller with all permissions
	Details bool
}

// checkRow is one decision.
type checkRow struct {
	Action, Resource string
	Allowed          bool
	Verdict          string
	By               string // the statement that decides; empty: none
	Near             []string
}

func (e *exchange) explain() {
	page := explainPage{credentialForm: e.readCredentialForm(), Asked: e.text("cluster") != ""}
	if !page.Asked {
		e.show(http.StatusOK, "explain", page)
		return
	}
	action, parameters := page.call()
	x, err := e.config.API.ConsoleExplain(e.r, OfSession(e.session), action, parameters)
	answer, ok := e.denied(err)
	if !ok {
		return
	}
	if answer != nil {
		page.Invalid = refused(answer)
		e.show(answer.Status, "explain", page)
		return
	}
	page.Allowed, page.Details = x.Allowed(), x.Details
	for _, c := range x.Checks {
		page.Checks = append(page.Checks, describe(c, x.Details))
	}
	if x.Refusal != nil {
		page.Invalid = refused(x.Refusal)
	}
	e.show(http.StatusOK, "explain", page)
}

func describe(c api.Explanation, details bool) checkRow {
	r := checkRow{Action: c.Action, Resource: c.Resource, Allowed: c.Decision.Allowed(), Verdict: verdict(c.Decision), By: statementOf(c.Decision)}
	for _, miss := range c.NearMisses[:min(len(c.NearMisses), 5)] {
		r.Near = append(r.Near, nearMiss(miss, details))
	}
	return r
}

func verdict(d iam.Decision) string {
	switch {
	case d.Allowed():
		return "allowed"
	case d.Effect == iam.ExplicitDeny:
		return "denied by a statement"
	case d.Layer == iam.LimitLayer:
		return "denied: it takes too many steps to decide"
	}
	return "denied: no statement of the " + d.Layer.String() + " allows it"
}

// statementOf names the statement that decided, or "".
func statementOf(d iam.Decision) string {
	if d.Policy == "" {
		return ""
	}
	return statementName(d.Sid, d.Index) + " of " + d.Policy + " (" + d.Layer.String() + ")"
}

func statementName(sid string, index int) string {
	if sid != "" {
		return sid
	}
	return "Statement[" + strconv.Itoa(index) + "]"
}

// nearMiss describes a statement that nearly allows a request. Without details it names the
// condition keys, but not the values that they are compared with.
func nearMiss(m iam.NearMiss, details bool) string {
	who := statementName(m.Sid, m.Index) + " of " + m.Policy
	if len(m.Unmet) == 0 {
		if !details {
			return who + " allows it for another resource of this kind"
		}
		return who + " allows it for " + strings.Join(shorten(m.Resources), ", ")
	}
	var keys []string
	for _, u := range m.Unmet {
		key := u.Key
		if details {
			key += " (" + u.Operator + " " + strings.Join(shorten(u.Values), ", ") + ")"
		}
		keys = append(keys, key)
	}
	return who + " would allow it but for its condition on " + strings.Join(keys, " and ")
}

func shorten(list []string) []string {
	const most = 4
	if len(list) > most {
		return append(list[:most:most], "…")
	}
	return list
}
