package api

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/directory"
)

// describeClusters lists clusters: Redshift API Reference, DescribeClusters.
type describeClusters struct {
	identifier string // empty: all
	tagKeys    []string
	tagValues  []string
	marker     string
	target     target
}

// maxTagFilters is ours: as many tags as a cluster can have at AWS.
const maxTagFilters = 50

func readDescribeClusters(r *reader) *describeClusters {
	p := &describeClusters{
		identifier: r.text("ClusterIdentifier").value,
		tagKeys:    r.list("TagKeys", "TagKey", maxTagFilters),
		tagValues:  r.list("TagValues", "TagValue", maxTagFilters),
		marker:     readMarker(r),
	}
	if p.identifier != "" {
		p.target = r.cluster(p.identifier)
	}
	return p
}

// needs returns the check on the cluster that the call names or, without a name, on cluster:*, as
// at AWS.
func (p *describeClusters) needs(c *call) []check {
	return []check{p.target.check("redshift:DescribeClusters", c.resource("cluster", cmp.Or(p.identifier, "*"), ""), nil)}
}

func (p *describeClusters) act(c *call) (awsquery.Result, error) {
	for _, tag := range slices.Concat(p.tagKeys, p.tagValues) {
		if utf8.RuneCountInString(tag) > 256 {
			return nil, &awsquery.Error{Code: "InvalidTagFault", Status: http.StatusBadRequest,
				Message: "A tag key or value is longer than 256 characters."}
		}
	}
	page, err := readPage(c, p.marker)
	if err != nil {
		return nil, err
	}
	clusters := c.directory.Clusters()
	if p.identifier != "" {
		if p.target.err != nil {
			return nil, p.target.err
		}
		clusters = []*directory.Cluster{p.target.cluster}
	}
	var result clusterList
	ask := c.ask()
	for i := page.start(clusters); i < len(clusters); i++ {
		cluster := clusters[i]
		if !p.matches(cluster) {
			continue
		}
		// A Deny for one cluster hides it from a caller who may list all clusters.
		k := check{action: "redshift:DescribeClusters", resource: c.resource("cluster", cluster.Identifier, ""), tags: &cluster.Tags}
		if !ask.decide(&k).Allowed() {
			continue
		}
		if len(result.clusters) == page.size {
			result.marker = markerAfter(result.clusters[page.size-1])
			break
		}
		result.clusters = append(result.clusters, cluster)
	}
	return &result, nil
}

// matches reports whether the cluster has a tag with one of the keys and one of the
// values. An empty list matches all.
func (p *describeClusters) matches(cluster *directory.Cluster) bool {
	if len(p.tagKeys) == 0 && len(p.tagValues) == 0 {
		return true
	}
	for key, value := range cluster.Tags {
		if (len(p.tagKeys) == 0 || slices.Contains(p.tagKeys, key)) &&
			(len(p.tagValues) == 0 || slices.Contains(p.tagValues, value)) {
			return true
		}
	}
	return false
}

// clusterList is DescribeClustersResult. Empty lists are written too, because clients
// index them without a check.
type clusterList struct {
	marker   string
	clusters []*directory.Cluster
}

func (l *clusterList) EncodeXML(e *awsquery.Encoder) {
	if l.marker != "" {
		e.String("Marker", l.marker)
	}
	awsquery.List(e, "Clusters", "Cluster", l.clusters, encodeCluster)
}

// encodeCluster writes the members of a Redshift cluster that make sense for a
// PostgreSQL server behind a gateway, and the lists that every Redshift cluster has. It
// leaves out MasterUsername, because callers need not know the administrative login.
func encodeCluster(e *awsquery.Encoder, c *directory.Cluster) {
	e.String("ClusterIdentifier", c.Identifier)
	e.String("ClusterStatus", "available")
	e.String("ClusterAvailabilityStatus", "Available")
	e.String("DBName", c.Database)
	e.Element("Endpoint", func() {
		e.String("Address", c.Host)
		e.Int("Port", c.Port)
	})
	e.Strings("ClusterSecurityGroups", "", nil)
	e.Strings("VpcSecurityGroups", "", nil)
	e.Strings("ClusterParameterGroups", "", nil)
	e.Strings("PendingModifiedValues", "", nil)
	e.String("ClusterVersion", "1.0")
	e.Bool("AllowVersionUpgrade", false)
	e.Int("NumberOfNodes", 1)
	e.Bool("PubliclyAccessible", false)
	e.Strings("ClusterNodes", "", nil)
	awsquery.List(e, "Tags", "Tag", slices.Sorted(maps.Keys(c.Tags)), func(e *awsquery.Encoder, key string) {
		e.String("Key", key)
		e.String("Value", c.Tags[key])
	})
	e.Bool("EnhancedVpcRouting", false)
	e.Strings("IamRoles", "", nil)
	e.Strings("PendingActions", "", nil)
	e.Strings("DeferredMaintenanceWindows", "", nil)
	// Terraform fails if one of these is missing.
	e.String("AvailabilityZoneRelocationStatus", "disabled")
	e.String("MultiAZ", "Disabled")
	if len(c.CustomDomains) > 0 {
		e.String("CustomDomainName", c.CustomDomains[0])
	}
}
