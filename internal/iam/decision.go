package iam

// Effect is the outcome of an evaluation. The zero value denies.
type Effect int

const (
	// ImplicitDeny means that no statement allows the request.
	ImplicitDeny Effect = iota
	// ExplicitDeny means that a Deny statement matches.
	ExplicitDeny
	// Allowed means that every layer allows and nothing denies.
	Allowed
)

// String returns the policy simulator's spelling.
func (e Effect) String() string {
	switch e {
	case Allowed:
		return "allowed"
	case ExplicitDeny:
		return "explicitDeny"
	default:
		return "implicitDeny"
	}
}

// Layer is one of the kinds of policy that a request has to pass.
type Layer int

const (
	// IdentityLayer has the policies of users, groups and IAM roles.
	IdentityLayer Layer = iota
	// BoundaryLayer has the permissions boundary.
	BoundaryLayer
	// SessionLayer has the policies that were passed when a session was made.
	SessionLayer
	// TrustLayer has the trust policy of the IAM role to be assumed.
	TrustLayer
	// LimitLayer is not a kind of policy: the decision took more steps than are
	// allowed.
	LimitLayer
)

// String returns the wording of AWS's access denied messages.
func (l Layer) String() string {
	switch l {
	case BoundaryLayer:
		return "permissions boundary"
	case SessionLayer:
		return "session policy"
	case TrustLayer:
		return "role trust policy"
	case LimitLayer:
		return "limit of steps"
	default:
		return "identity-based policy"
	}
}

// Decision is the outcome of an evaluation and what decided it. The zero value
// is an implicit deny.
type Decision struct {
	Effect Effect
	// Layer is the layer that decided: the layer of the deciding statement or, after an implicit
	// deny, the first layer that does not allow.
	Layer Layer
	// Policy, Sid, Index (from 0), Line and Column describe the deciding statement: the
	// matching Deny, or the Allow. After an implicit deny Policy is empty and Index is
	// -1.
	Policy       string
	Sid          string
	Index        int
	Line, Column int
}

// Allowed reports whether the request may proceed.
func (d Decision) Allowed() bool { return d.Effect == Allowed }

func allowedBy(layer Layer, p *Policy, s *statement) Decision {
	return decidedBy(Allowed, layer, p, s)
}

func deniedBy(layer Layer, p *Policy, s *statement) Decision {
	return decidedBy(ExplicitDeny, layer, p, s)
}

func decidedBy(effect Effect, layer Layer, p *Policy, s *statement) Decision {
	if s == nil {
		return Decision{Layer: layer, Index: -1}
	}
	return Decision{
		Effect: effect,
		Layer:  layer,
		Policy: p.name,
		Sid:    s.sid,
		Index:  s.index,
		Line:   s.start.Line,
		Column: s.start.Column,
	}
}

// DenialMessage returns the text of the AccessDenied error for a refused request, in AWS's words
// (UG troubleshoot_access-denied). Without a caller's ARN, as for a token of an identity
// provider, it returns the short form that AssumeRoleWithWebIdentity uses.
func DenialMessage(callerARN, action, resource string, d Decision) string {
	if callerARN == "" {
		return "Not authorized to perform " + action
	}
	msg := "User: " + callerARN + " is not authorized to perform: " + action
	if resource != "" {
		msg += " on resource: " + resource
	}
	if d.Layer == LimitLayer {
		return msg + " because deciding it takes too many steps, with wildcards in policies and long values in the request"
	}
	if d.Effect != ExplicitDeny {
		return msg + " because no " + d.Layer.String() + " allows the " + action + " action"
	}
	article := " a "
	switch d.Layer {
	case IdentityLayer:
		article = " an "
	case TrustLayer:
		article = " the "
	}
	return msg + " with an explicit deny in" + article + d.Layer.String()
}
