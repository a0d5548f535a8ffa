package api

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"maps"
	"net/http"
	"slices"
	"sort"
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

// needs is the cluster that is named. Without a name it is every cluster,
// cluster:*, as Redshift asks for it.
func (p *describeClusters) needs(c *call) []check {
	name := p.identifier
	if name == "" {
		name = "*"
	}
	return []check{p.target.check("redshift:DescribeClusters", c.resource("cluster", name, ""), nil)}
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
		// Who may list all clusters does not see one that a statement
		// keeps from him.
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

// matches reports whether the cluster has a tag with one of the keys and one of
// the values; a list that is empty asks for nothing.
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

// clusterList is DescribeClustersResult. Lists are there when they are empty:
// clients index them without asking.
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

// encodeCluster writes those of a Redshift cluster's members that are true of a
// PostgreSQL server behind a gateway, and the lists that every Redshift cluster
// has. The administrative login, which MasterUsername would be, is nobody's
// business.
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
	// Terraform takes the lack of either for an error.
	e.String("AvailabilityZoneRelocationStatus", "disabled")
	e.String("MultiAZ", "Disabled")
	if len(c.CustomDomains) > 0 {
		e.String("CustomDomainName", c.CustomDomains[0])
	}
}

// page is a piece of a list that is sorted by cluster identifier.
type page struct {
	size  int
	after string // the last identifier of the page before, or empty
}

// readMarker reads both parameters of paging for the audit line, and returns
// Marker.
func readMarker(r *reader) string {
	r.text("MaxRecords")
	return r.text("Marker").value
}

// readPage judges MaxRecords, 20 to 100 and 100 when it is not given, and Marker.
func readPage(c *call, marker string) (page, error) {
	size, given, err := c.query.Params.Int("MaxRecords")
	switch {
	case err != nil:
		return page{}, err
	case !given:
		size = 100
	case size < 20 || size > 100:
		return page{}, awsquery.Invalid("MaxRecords", "must be between 20 and 100")
	}
	p := page{size: size}
	if marker != "" {
		after, err := base64.RawURLEncoding.Strict().DecodeString(marker)
		if err != nil || len(after) <= 4 || markerOf(string(after[4:])) != marker {
			return page{}, awsquery.Invalid("Marker", "must be one that an earlier call returned")
		}
		p.after = string(after[4:])
	}
	return p, nil
}

// start is the index of the page's first cluster. A cluster that has gone since
// the last page was made does not matter: the marker is a place, not a row.
func (p page) start(clusters []*directory.Cluster) int {
	if p.after == "" {
		return 0
	}
	return sort.Search(len(clusters), func(i int) bool { return clusters[i].Identifier > p.after })
}

// markerOf is the marker of the page that begins behind a place. Its first bytes
// tell a mistake from a marker: a list that ends early looks like a whole one.
func markerOf(place string) string {
	sum := crc32.ChecksumIEEE([]byte(place))
	return base64.RawURLEncoding.EncodeToString(append(binary.BigEndian.AppendUint32(nil, sum), place...))
}

// markerAfter is the marker of the page that begins behind this cluster.
func markerAfter(c *directory.Cluster) string {
	return markerOf(c.Identifier)
}
