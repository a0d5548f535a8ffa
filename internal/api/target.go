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
	// domain stands for itself, so that a caller without rights gets the same
	// answer as for an unknown identifier.
	name    string
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
	if identifier == "" && shared {
		r.fail(&awsquery.Error{Code: "InvalidParameterCombination", Status: http.StatusBadRequest,
			Message: "The parameter CustomDomainName is the address of several clusters. Give ClusterIdentifier, or a custom domain name of one of them."})
		return target{}
	}
	if identifier == "" {
		cluster, ok := r.directory.ClusterByDomain(domain)
		if !ok {
			return target{name: domain, err: errClusterNotFound(domain)}
		}
		return target{name: cluster.Identifier, cluster: cluster}
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

// resource is the ARN of something in a cluster, or of a cluster. The account is
// the caller's: there are no calls across accounts.
func (c *call) resource(kind, cluster, name string) string {
	slash := "/"
	if kind == "cluster" {
		slash, name = "", ""
	}
	return "arn:" + directory.Partition + ":redshift:" + c.directory.Region + ":" + c.directory.Account +
		":" + kind + ":" + cluster + slash + name
}
