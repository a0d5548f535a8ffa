package api

import "github.com/daypass/daypass/internal/awsquery"

// loggingStatus answers that a cluster logs nothing to S3 or CloudWatch: Redshift API
// Reference, DescribeLoggingStatus. Terraform's data source for a cluster calls it.
type loggingStatus struct{ target target }

func readLoggingStatus(r *reader) *loggingStatus {
	return &loggingStatus{r.cluster(r.required("ClusterIdentifier"))}
}

func (p *loggingStatus) needs(c *call) []check {
	return []check{p.target.check("redshift:DescribeLoggingStatus", c.resource("cluster", p.target.name, ""), nil)}
}

func (p *loggingStatus) act(*call) (awsquery.Result, error) {
	if p.target.err != nil {
		return nil, p.target.err
	}
	return awsquery.ResultFunc(func(e *awsquery.Encoder) { e.Bool("LoggingEnabled", false) }), nil
}
