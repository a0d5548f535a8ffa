package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/daypass/daypass/internal/awscli"
	"github.com/daypass/daypass/internal/awscli/jmespath"
	"github.com/daypass/daypass/internal/awscli/pyvalue"
	"github.com/daypass/daypass/internal/keyring"
)

// gatewayPort is the default port of a gateway, as of an Amazon
// Redshift cluster.
const gatewayPort = 5439

// locate finds out where the gateway is and which database is meant.
func (o *connectOptions) locate(ctx context.Context, client *awscli.Client, to *logon) error {
	to.host, to.port, to.database = o.host, o.port, o.database
	if to.host != "" && to.port == 0 {
		to.port = gatewayPort
	}
	if to.host != "" && to.database != "" {
		return to.checkPlace()
	}
	answer, err := client.Call(ctx, "DescribeClusters", object("ClusterIdentifier", o.cluster))
	if err != nil {
		var api *awscli.APIError
		if errors.As(err, &api) && api.Code == "AccessDenied" {
			missing := "where it is: --host HOST --port PORT"
			switch {
			case to.host != "":
				missing = "which database to log on to"
			case to.database == "":
				missing += ", and which database to log on to"
			}
			return fmt.Errorf("%w\n\nYour policies do not allow redshift:DescribeClusters, which says where a cluster is. Have it allowed, or say %s:\n\n    %s", err,
				missing, o.again())
		}
		return err
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

func object(pairs ...any) *pyvalue.Object {
	o := new(pyvalue.Object)
	for i := 0; i+1 < len(pairs); i += 2 {
		o.Set(pairs[i].(string), pairs[i+1])
	}
	return o
}

// findCluster reads the endpoint of the one cluster that was asked for.
func findCluster(answer *pyvalue.Object) (logon, error) {
	var at logon
	expression, err := jmespath.Compile("Clusters[0].[Endpoint.Address, Endpoint.Port, DBName, ClusterStatus]")
	if err != nil {
		return at, err
	}
	value, err := expression.Search(answer)
	fields, ok := value.([]any)
	if err != nil || !ok {
		return at, errors.New("the API returned no such cluster")
	}
	at.host, _ = fields[0].(string)
	at.database, _ = fields[2].(string)
	port, err := strconv.Atoi(pyvalue.Str(fields[1]))
	if at.host == "" || err != nil {
		return at, fmt.Errorf("it has no endpoint (its status is %.40q): say where the gateway is with --host and --port", pyvalue.Str(fields[3]))
	}
	at.port = port
	return at, nil
}

// ask gets the credential.
func (o *connectOptions) ask(ctx context.Context, client *awscli.Client, seconds int64, to *logon) error {
	call := "GetClusterCredentialsWithIAM"
	params := object("ClusterIdentifier", o.cluster)
	if to.database != "" {
		params.Set("DbName", to.database)
	}
	if seconds != 0 {
		params.Set("DurationSeconds", pyvalue.Int(seconds))
	}
	if !o.withIAM {
		call = "GetClusterCredentials"
		params.Set("DbUser", o.user)
		params.Set("AutoCreate", o.autoCreate)
		if len(o.groups) > 0 {
			groups := make([]any, len(o.groups))
			for i, group := range o.groups {
				groups[i] = group
			}
			params.Set("DbGroups", groups)
		}
	}
	answer, err := client.Call(ctx, call, params)
	if err != nil {
		return err
	}
	text := func(name string) string {
		value, _ := answer.Get(name)
		s, _ := value.(string)
		return s
	}
	to.user, to.password, to.expiration = text("DbUser"), keyring.Secret(text("DbPassword")), text("Expiration")
	return to.check(o.user)
}
