package api

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/daypass/daypass/internal/iam"
	"github.com/daypass/daypass/internal/registry"
)

// Question asks whether a session may take an action on a resource of our own service, such as
// session/CLUSTER/ID. The cluster's tags are condition keys, and so is the owner of the session, if
// Principal is not empty.
type Question struct{ Action, Resource, Cluster, Principal string }

// ConsoleMay answers questions, so that a page shows only buttons that work. Nothing is
// recorded; the call itself is decided again.
func (h *Handler) ConsoleMay(r *http.Request, s *ConsoleSession, questions []Question) (may []bool, err error) {
	err = h.console(r, s, &action{service: daypassService, name: "ConsolePage", readOnly: true}, func(c *call) error {
		c.unrecorded = true
		ask := c.ask()
		for _, q := range questions {
			of := c.cluster(q.Cluster)
			k := of.check(q.Action, c.own(q.Resource), ownerKeys(c.directory, q.Principal))
			may = append(may, ask.decide(&k).Allowed())
		}
		return nil
	})
	return may, err
}

// ConsoleMayRevoke reports which revocations a session may make. As with ConsoleMay, nothing is
// recorded, and each call is decided again.
func (h *Handler) ConsoleMayRevoke(r *http.Request, s *ConsoleSession, revocations []registry.Revocation) (may []bool, err error) {
	err = h.console(r, s, &action{service: daypassService, name: "ConsolePage", readOnly: true}, func(c *call) error {
		c.unrecorded = true
		ask := c.ask()
		for _, v := range revocations {
			p := &revokeCredentials{revocation: v}
			if v.Cluster != "" {
				p.target = c.cluster(v.Cluster)
			}
			may = append(may, !slices.ContainsFunc(p.needs(c), func(k check) bool { return k.refuses(ask.decide(&k)) }))
		}
		return nil
	})
	return may, err
}

// ConsoleMayRevokeSome reports whether a session may revoke the credentials of some principal: its own,
// an IAM user, an IAM role or a role's sessions. A Deny for other principals does not count.
func (h *Handler) ConsoleMayRevokeSome(r *http.Request, s *ConsoleSession) (may bool, err error) {
	err = h.console(r, s, &action{service: daypassService, name: "ConsolePage", readOnly: true}, func(c *call) error {
		c.unrecorded = true
		ask := c.ask()
		allowed := func(principal string) bool {
			k := check{action: revokeAction, resource: c.own(revocationResource(&registry.Revocation{Principal: principal}, c.directory.Account))}
			return ask.decide(&k).Allowed()
		}
		may = allowed("*") || allowed(c.caller.Principal.ARN) || slices.ContainsFunc(c.directory.UserARNs(), allowed) ||
			slices.ContainsFunc(c.directory.RoleARNs(), func(arn string) bool {
				name := lastPart(arn)
				role, ok := c.directory.Role(name)
				return allowed(arn) || ok && allowed(sessionARN(c.directory, role, "*"))
			})
		return nil
	})
	return may, err
}

// ConsoleExplanation is why a call of a session would be allowed or refused.
type ConsoleExplanation struct {
	Outcome
	// Details reports that the session may see the values that conditions compare with, as far as
	// policies decide it (sts:DecodeAuthorizationMessage). Otherwise pages name only the
	// condition keys.
	Details bool
}

// mayDecode is the permission to see what a refusal leaves out.
var mayDecode = check{action: "sts:DecodeAuthorizationMessage", resource: "*"}

// ConsoleExplain decides every check of a call of GetClusterCredentials or
// GetClusterCredentialsWithIAM that the session would make now. Like the refusal of the call
// itself, the explanation of a denied call does not tell whether a cluster exists.
func (h *Handler) ConsoleExplain(r *http.Request, s *ConsoleSession, name string, parameters url.Values) (x ConsoleExplanation, err error) {
	err = h.console(r, s, &action{service: redshiftService, name: "ConsoleExplain", readOnly: true}, func(c *call) error {
		c.unrecorded = true
		if err := c.setParameters(parameters); err != nil {
			return err
		}
		details := mayDecode
		x.Details = c.ask().decide(&details).Allowed()
		x.Policies = c.caller.Policies
		// The call is only explained, not made, so it gets no audit record and throwaway keys.
		supposed := &call{http: c.http, directory: c.directory, keyring: throwaway(c.now), now: c.now, source: c.source,
			service: redshiftService, query: c.query, caller: c.caller, hiding: true}
		var err error
		if name == "GetClusterCredentialsWithIAM" {
			err = explain(supposed, &x.Outcome, readWithIAM, (*withIAM).needs, (*withIAM).act)
		} else {
			err = explain(supposed, &x.Outcome, readGetClusterCredentials, (*getClusterCredentials).needs, (*getClusterCredentials).act)
		}
		err = x.refuse(err)
		for _, e := range x.Checks {
			if !e.Decision.Allowed() {
				x.Refusal = nil // a caller who is denied does not learn the rest
			}
		}
		return err
	})
	return x, err
}

// ConsoleSimulate is a call of SimulateCustomPolicy or SimulatePrincipalPolicy whose result has
// the deciding statements and the near misses too.
func (h *Handler) ConsoleSimulate(r *http.Request, s *ConsoleSession, name string, parameters url.Values) (out *iam.SimulateOutput, err error) {
	row, ok := h.actions[actionKey{iamService, name}]
	if !ok {
		return nil, errInvalidAction(name, "")
	}
	err = h.console(r, s, row, func(c *call) error {
		if err := c.setParameters(parameters); err != nil {
			return err
		}
		read := reader{call: c}
		p := readSimulateCustom
		if name == "SimulatePrincipalPolicy" {
			p = readSimulatePrincipal
		}
		simulated := p(&read)
		if read.err != nil {
			return read.err
		}
		if err := c.authorize(simulated.needs(c)); err != nil {
			return err
		}
		simulated.input.Explain = true
		out, err = simulated.simulate(c)
		return err
	})
	return out, err
}
