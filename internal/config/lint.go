package config

import (
	"os"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/iam"
)

// LintPolicies checks a policy document in YAML, or all policies of a configuration
// file, and ignores other faults of that file. kindOf returns the kind of a single
// document, given as JSON.
func LintPolicies(name string, data []byte, kindOf func([]byte) iam.Kind) ([]iam.Warning, []error) {
	f, err := newYAMLFile(name, os.LookupEnv)
	if err != nil {
		return nil, []error{err}
	}
	root, err := f.document(data)
	if err != nil {
		return nil, []error{err}
	}
	if mappingValue(root, "iam") == nil {
		document := jsonOf(root)
		policy, err := iam.ParsePolicy(kindOf(document), name, document)
		if err != nil {
			return nil, []error{err}
		}
		return policy.Warnings(), nil
	}
	top := f.open(root, "", fileKeys)
	spec := directory.Spec{Account: top.text("account"), Region: top.text("region")}
	for _, s := range top.sections("clusters") {
		spec.Clusters = append(spec.Clusters, directory.Cluster{Identifier: s.text("identifier")})
	}
	if s := top.sub("iam"); s != nil {
		readIAM(s, &spec)
	}
	var errs []error
	for _, fault := range f.sorted() {
		if fault.policy {
			errs = append(errs, fault.err)
		}
	}
	return policyWarnings(&spec), errs
}
