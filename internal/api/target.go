package api

import (
	"net/http"

	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/directory"
)

// target is the cluster that a request means. It has a name for ARNs before
// anybody may know whether it exists.
type target struct {
	// name is the cluster's part of the ARNs to authorise: the identifier as
	// given, or the one that the custom domain name stands for. An unknown
	// domain stands for itself.
	name    string
	domain  string             // the custom domain name that the request means it by, if any
	cluster *directory.Cluster // nil: there is none
	err     error              // why not
}

// target finds the cluster by either parameter. Redshift's drivers send the
// other one empty, so empty is not given. They also send the address that
// DescribeClusters told them as a custom domain name; the directory knows it, and
// where several clusters have it the identifier says which.
func (r *reader) target() target {
	identifier, domain := r.text("ClusterIdentifier").value, r.text("CustomDomainName").value
	if identifier == "" && domain == "" {
		r.fail(awsquery.Missing("ClusterIdentifier or CustomDomainName"))
		return target{}
	}
	shared := domain != "" && r.directory.SharedAddress(domain)
	if identifier == "" {
		t := target{name: domain, domain: domain, err: errClusterNotFound(domain)}
		if shared {
			t.err = &awsquery.Error{Code: "InvalidParameterCombination", Status: http.StatusBadRequest,
				Message: "The parameter CustomDomainName is the address of several clusters. Give ClusterIdentifier, or a custom domain name of one of them."}
		} else if cluster, ok := r.directory.ClusterByDomain(domain); ok {
			t.name, t.cluster, t.err = cluster.Identifier, cluster, nil
		}
		return t
	}
	t := r.cluster(identifier)
	if domain != "" && !shared && t.cluster != nil {
		if other, ok := r.directory.ClusterByDomain(domain); !ok || other != t.cluster {
			t.err = &awsquery.Error{Code: "InvalidParameterCombination", Status: http.StatusBadRequest,
				Message: "The parameters ClusterIdentifier and CustomDomainName do not name the same cluster."}
		}
	}
	return t
}

// cluster is the target with this identifier.
func (c *call) cluster(identifier string) target {
	cluster, ok := c.directory.Cluster(identifier)
	if !ok {
		return target{name: identifier, err: errClusterNotFound(identifier)}
	}
	return target{name: identifier, cluster: cluster}
}

// check is one on a resource of the target, which has the cluster's tags.
func (t *target) check(action, resource string, keys []conditionKey) check {
	k := check{action: action, resource: resource, keys: keys}
	if t.cluster != nil {
		k.tags = &t.cluster.Tags
	}
	return k
}

// domainHint follows every refusal of a call that names its cluster by a domain,
// known or not.
const domainHint = ". If CustomDomainName is the address of several clusters, give ClusterIdentifier"

// within is a check on something in the target: k with its resource.
func (c *call) within(t *target, k check, kind, name string) check {
	if t.domain != "" {
		k.hint, k.told = domainHint+k.hint, c.resource(kind, t.domain, name)
		k.unknown = unknownDomain(k)
	}
	k.resource = c.resource(kind, t.name, name)
	if t.cluster != nil {
		k.tags = &t.cluster.Tags
	}
	return k
}

// unknownDomain is the check on the text of a domain that no cluster has.
func unknownDomain(k check) func() []check {
	k.resource, k.told = k.told, ""
	return func() []check { return []check{k} }
}

// first appends the checks on what a call is about first. A domain that no cluster has
// is every cluster's: who may not know of each of them is refused, as for the domain
// of a cluster that is not theirs.
func (c *call) first(checks []check, t *target, k check, kind, name string) []check {
	one := c.within(t, k, kind, name)
	if t.domain == "" {
		return append(checks, one)
	}
	named := one.unknown()[0]
	one.unknown = func() []check {
		checks := []check{named}
		for _, cluster := range c.directory.Clusters() {
			other := named
			other.resource, other.tags = c.resource(kind, cluster.Identifier, name), &cluster.Tags
			other.told, other.wider = named.resource, true
			checks = append(checks, other)
		}
		return checks
	}
	if t.cluster == nil {
		return append(checks, one.unknown()...)
	}
	return append(checks, one)
}

// resource is the ARN of something in a cluster, or of a cluster. The account is
// the caller's: there are no calls across accounts.
func (c *call) resource(kind, cluster, name string) string {
	slash := "/"
	if kind == "cluster" {
		slash, name = "", ""
	}
	return "arn:" + c.directory.Partition + ":redshift:" + c.directory.Region + ":" + c.directory.Account +
		":" + kind + ":" + cluster + slash + name
}
