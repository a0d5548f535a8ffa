// Package iam decides what AWS Identity and Access Management would decide: it
// parses ARNs and policy documents, compiles them once, and evaluates requests
// against them without allocating.
//
// It follows the IAM User Guide (UG, docs.aws.amazon.com/IAM/latest/UserGuide):
// reference_policies_grammar and the pages on the elements for documents,
// reference_policies_evaluation-logic for precedence, and
// reference_policies_elements_condition_operators and reference_policies_variables for
// conditions. Warnings and the table of actions follow the Service Authorization
// Reference (SAR) and IAM Access Analyzer's policy checks.
//
// Where the documents leave a rule open, the statement is read in the way that refuses:
// the same doubt makes an Allow not match and a Deny match. That applies to
//   - a request value that the operator cannot read (no number, date, address, ARN…);
//   - a plain operator on a key with several values, a lone empty string under a
//     set operator, an empty list of values with a negated operator, an ARN with fewer
//     than six parts as a condition value;
//   - a wildcard in the resource type of an ARN;
//   - NotPrincipal that does not name the whole chain of account, IAM role and
//     session; "*" as principal, which in an Allow leaves identity providers out.
//
// The value of a policy variable is plain text, and only characters that a policy can
// contain are compared without regard to case.
//
// Both sides of a decision may be the caller's own: a session policy, and a header.
// So parsing is bounded by the size of the document, and a decision by a number of
// steps, beyond which the request is denied.
//
// The package does no I/O, has no clock and logs nothing: the time of a request is a
// condition key like any other. Service control policies, resource control policies,
// endpoint policies, and resource-based policies other than role trust policies do not
// exist here.
package iam
