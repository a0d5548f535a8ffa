// Package iam decides what AWS Identity and Access Management would decide: it
// parses ARNs and policy documents, and evaluates a request against them.
//
// It follows the IAM User Guide, chiefly the pages on the policy grammar
// (reference_policies_grammar), the evaluation logic
// (reference_policies_evaluation-logic), condition operators
// (reference_policies_elements_condition_operators) and policy variables
// (reference_policies_variables).
package iam
