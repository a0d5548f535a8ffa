package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/redshift"

	"github.com/daypass/daypass/internal/awsconfig"
	"github.com/daypass/daypass/internal/keyring"
)

// gatewayPort is the default port of a gateway, as of an Amazon Redshift cluster.
const gatewayPort = 5439

// locate finds the host and port of the gateway and the database to log on to.
func (o *connectOptions) locate(ctx context.Context, client *redshift.Client, to *logon) error {
	to.host, to.port, to.database = o.host, o.port, o.database
	if to.host != "" && to.port == 0 {
		to.port = gatewayPort
	}
	if to.host != "" && to.database != "" {
		return to.checkPlace()
	}
	answer, err := client.DescribeClusters(ctx, &redshift.DescribeClustersInput{ClusterIdentifier: aws.String(o.cluster)})
	if err != nil {
		return o.notLocated(to, awsconfig.Explain(err))
	}
	at, err := findCluster(answer)
	if err != nil {
		return fmt.Errorf("cluster %s: %w", o.cluster, err)
	}
	if to.host == "" {
		to.host = at.host
	}
	if to.port == 0 {
		to.port = at.port
	}
	if to.database == "" {
		to.database = at.database
	}
	return to.checkPlace()
}

// notLocated adds advice to an error of DescribeClusters: where the clusters are listed, or how a
// caller without that permission can connect.
func (o *connectOptions) notLocated(to *logon, err error) error {
	switch refused, ok := errors.AsType[*awsconfig.APIError](err); {
	case ok && refused.Code == clusterNotFound:
		return fmt.Errorf("%w\n\nCheck its name: `daypass redshift describe-clusters` lists the clusters that you may see", err)
	case !ok || refused.Code != "AccessDenied":
		return err
	}
	missing := "where it is: --host HOST --port PORT"
	switch {
	case to.host != "":
		missing = "which database to log on to"
	case to.database == "":
		missing += ", and which database to log on to"
	}
	return fmt.Errorf("%w\n\nYour policies do not allow redshift:DescribeClusters, which tells clients where a cluster is. Ask for permission, or name %s:\n\n    %s", err,
		missing, o.again())
}

// findCluster reads the endpoint of the requested cluster.
func findCluster(answer *redshift.DescribeClustersOutput) (logon, error) {
	if len(answer.Clusters) == 0 {
		return logon{}, errors.New("the API knows no such cluster: check the name and --endpoint-url")
	}
	cluster := answer.Clusters[0]
	if cluster.Endpoint == nil || aws.ToString(cluster.Endpoint.Address) == "" || cluster.Endpoint.Port == nil {
		return logon{}, fmt.Errorf("it has no endpoint (its status is %.40q): name the gateway with --host and --port", aws.ToString(cluster.ClusterStatus))
	}
	return logon{host: *cluster.Endpoint.Address, port: int(*cluster.Endpoint.Port), database: aws.ToString(cluster.DBName)}, nil
}

// ask requests the credential. seconds is its lifetime, 0 for the default.
func (o *connectOptions) ask(ctx context.Context, client *redshift.Client, seconds int32, to *logon) error {
	var cluster, database, duration = aws.String(o.cluster), optional(to.database), optional(seconds)
	if o.withIAM {
		answer, err := client.GetClusterCredentialsWithIAM(ctx, &redshift.GetClusterCredentialsWithIAMInput{
			ClusterIdentifier: cluster, DbName: database, DurationSeconds: duration})
		if err != nil {
			return awsconfig.Explain(err)
		}
		to.take(answer.DbUser, answer.DbPassword, answer.Expiration)
		return to.check("")
	}
	answer, err := client.GetClusterCredentials(ctx, &redshift.GetClusterCredentialsInput{
		ClusterIdentifier: cluster, DbName: database, DurationSeconds: duration,
		DbUser: aws.String(o.user), AutoCreate: aws.Bool(o.autoCreate), DbGroups: o.groups})
	if err != nil {
		return awsconfig.Explain(err)
	}
	to.take(answer.DbUser, answer.DbPassword, answer.Expiration)
	return to.check(o.user)
}

// optional returns nil for a parameter that is left out.
func optional[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}

// take copies the credential of an answer into the logon.
func (l *logon) take(user, password *string, expiration *time.Time) {
	l.user, l.password, l.expiration = aws.ToString(user), keyring.Secret(aws.ToString(password)), aws.ToTime(expiration)
}
