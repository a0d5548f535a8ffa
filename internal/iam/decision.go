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

// String has the spelling of the policy simulator.
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
	IdentityLayer Layer = iota
	BoundaryLayer
	SessionLayer
	TrustLayer
)

// String has the words of AWS's access denied messages.
func (l Layer) String() string {
	switch l {
	case BoundaryLayer:
		return "permissions boundary"
	case SessionLayer:
		return "session policy"
	case TrustLayer:
		return "role trust policy"
	default:
		return "identity-based policy"
	}
}

// Decision is the outcome of an evaluation and what decided it. The zero value
// is an implicit deny.
type Decision struct {
	Effect Effect
	// Layer is where the request was decided: the layer of the deciding
	// statement, or for an implicit deny the first one that does not allow.
	Layer Layer
	// Policy, Sid, Index (from 0), Line and Column are of the deciding
	// statement: the matching Deny, or the Allow that granted. For an
	// implicit deny there is none: Policy is empty and Index is -1.
	Policy       string
	Sid          string
	Index        int
	Line, Column int
}

// Allowed reports whether the request may proceed.
func (d Decision) Allowed() bool { return d.Effect == Allowed }

// DenialMessage is the text of the AccessDenied error for a decision that does
// not allow, in AWS's words: IAM User Guide, troubleshoot_access-denied.
func DenialMessage(callerARN, action, resource string, d Decision) string {
	msg := "User: " + callerARN + " is not authorized to perform: " + action + " on resource: " + resource
	article := " a "
	if d.Layer == IdentityLayer {
		article = " an "
	}
	if d.Effect == ExplicitDeny {
		return msg + " with an explicit deny in" + article + d.Layer.String()
	}
	return msg + " because no " + d.Layer.String() + " allows the " + action + " action"
}
