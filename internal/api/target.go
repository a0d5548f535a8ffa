package api

import (
	"net/http"

	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/directory"
)

// target is the cluster that a request means. It has a name for ARNs even while the
// caller may not know whether the cluster exists.
type target struct {
	// name is the cluster's part of the ARNs: the given identifier, or the cluster of
	// the custom domain name. A domain that is not known stands for itself.
	name    string
	domain  string             // the custom domain name of the request, if any
	cluster *directory.Cluster // nil if it does not exist
	err     error              // the reason
}

// target finds the cluster by ClusterIdentifier or CustomDomainName. Redshift's drivers
// send the unused one empty, so empty means not given. They also send the address from
// DescribeClusters as the custom domain name; the directory knows that address, and if
// several clusters share it the identifier decides.
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

// cluster returns the target with this identifier.
func (c *call) cluster(identifier string) target {
	cluster, ok := c.directory.Cluster(identifier)
	if !ok {
		return target{name: identifier, err: errClusterNotFound(identifier)}
	}
	return target{name: identifier, cluster: cluster}
}

// check returns a check on a resource of the target, with the cluster's tags.
func (t *target) check(action, resource string, keys []conditionKey) check {
	k := check{action: action, resource: resource, keys: keys}
	if t.cluster != nil {
		k.tags = &t.cluster.Tags
	}
	return k
}

// domainHint is appended to every refusal of a call with CustomDomainName, whether the
// domain is known or not.
const domainHint = ". If CustomDomainName is the address of several clusters, give ClusterIdentifier"

// within returns k for a resource within the target.
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

// unknownDomain returns the checks for a domain that no cluster has, by its text.
func unknownDomain(k check) func() []check {
	k.resource, k.told = k.told, ""
	return func() []check { return []check{k} }
}

// first appends the checks on the call's first resource. A domain that no cluster has is checked
// for every cluster, so a caller who may not see all clusters gets the same refusal as for the
// domain of a cluster that they may not see.
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

// resource returns the ARN of a cluster, or of something in it. The account is the
// caller's, since there are no calls across accounts.
func (c *call) resource(kind, cluster, name string) string {
	slash := "/"
	if kind == "cluster" {
		slash, name = "", ""
	}
	return "arn:" + c.directory.Partition + ":redshift:" + c.directory.Region + ":" + c.directory.Account +
		":" + kind + ":" + cluster + slash + name
}

// own returns an ARN of our own service. Resource types are
//
//	credential/ID                 one credential
//	principal/user/ana            who asked for credentials: the last part of the
//	principal/role/etl            ARN of an IAM user, an IAM role or
//	principal/assumed-role/etl/s  a role session
//	dbuser/CLUSTER/NAME           a database user; CLUSTER is * for all clusters
//	cluster/NAME                  a cluster; NAME is * for all
//	session/CLUSTER/ID            a session at the gateway
func (c *call) own(resource string) string {
	return "arn:" + c.directory.Partition + ":daypass:" + c.directory.Region + ":" + c.directory.Account + ":" + resource
}
