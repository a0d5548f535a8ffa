package api

import (
	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/directory"
)

// describeCustomDomains returns the cluster that a host name stands for: Redshift API
// Reference, DescribeCustomDomainAssociations. Redshift's drivers call it for every
// host that is not one of Amazon's.
type describeCustomDomains struct {
	domain      string // empty: all
	certificate string
	marker      string
}

func readDescribeCustomDomains(r *reader) *describeCustomDomains {
	return &describeCustomDomains{
		domain:      r.text("CustomDomainName").value,
		certificate: r.text("CustomDomainCertificateArn").value,
		marker:      readMarker(r),
	}
}

// needs returns the check of the action on all resources: the Service Authorization Reference has
// no resource type for it. A Deny for one cluster still hides that cluster (see hidden).
func (p *describeCustomDomains) needs(*call) []check {
	return []check{{action: "redshift:DescribeCustomDomainAssociations", resource: "*"}}
}

func (p *describeCustomDomains) act(c *call) (awsquery.Result, error) {
	page, err := readPage(c, p.marker)
	if err != nil {
		return nil, err
	}
	var result associationList
	ask := c.ask()
	if p.domain != "" {
		cluster, ok := c.directory.ClusterByDomain(p.domain)
		if !ok || p.certificate != "" || hidden(ask, cluster) {
			return nil, errDomainNotFound(p.domain)
		}
		result.associations = []association{{cluster, []string{p.domain}}}
		return &result, nil
	}
	if p.certificate != "" {
		return nil, errDomainNotFound(p.certificate)
	}
	clusters := c.directory.Clusters()
	for i := page.start(clusters); i < len(clusters); i++ {
		cluster := clusters[i]
		if len(cluster.CustomDomains) == 0 || hidden(ask, cluster) {
			continue
		}
		if len(result.associations) == page.size {
			result.marker = markerAfter(result.associations[page.size-1].cluster)
			break
		}
		result.associations = append(result.associations, association{cluster, cluster.CustomDomains})
	}
	return &result, nil
}

// hidden reports whether a Deny hides this cluster.
func hidden(ask *asking, cluster *directory.Cluster) bool {
	k := check{action: "redshift:DescribeCustomDomainAssociations", resource: ask.call.resource("cluster", cluster.Identifier, ""),
		tags: &cluster.Tags, denyOnly: true}
	return k.refuses(ask.decide(&k))
}

// associationList is DescribeCustomDomainAssociationsResult. The domains of one cluster
// are one association. No certificate is named, since all clusters share the gateway's.
type associationList struct {
	marker       string
	associations []association
}

type association struct {
	cluster *directory.Cluster
	domains []string
}

func (l *associationList) EncodeXML(e *awsquery.Encoder) {
	if l.marker != "" {
		e.String("Marker", l.marker)
	}
	awsquery.List(e, "Associations", "Association", l.associations, func(e *awsquery.Encoder, a association) {
		awsquery.List(e, "CertificateAssociations", "CertificateAssociation", a.domains,
			func(e *awsquery.Encoder, domain string) {
				e.String("CustomDomainName", domain)
				e.String("ClusterIdentifier", a.cluster.Identifier)
			})
	})
}
