package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/daypass/daypass/test/sitetest"
)

// server is a running `daypass serve`.
type server struct {
	*sitetest.Process
	site    *sitetest.Site
	admin   string // host:port of its profiles; empty: no profiles are taken
	keys    []accessKey
	version string
	login0  login // a credential of the user bench, without an address
	users   int   // number of database users made so far, for unused names
}

// serverOptions describe what is registered with a server.
type serverOptions struct {
	size
	user string // that the server logs on as: each server has its own password for a session role
	// prewarm is how many sessions of the cluster bench may be started ahead.
	prewarm int
	// parked is how many sessions of the cluster bench may be parked; 0: none.
	parked int
	// answering is set if the other clusters answer, because they are the same PostgreSQL server.
	// Otherwise they do not answer.
	answering bool
	dummy     string // host:port of the server of one more cluster, dummyCluster; empty: none
}

// dummyCluster is the identifier of the cluster whose server is a dummy.
const dummyCluster = "dummy"

// startServer runs Daypass over a database. Only the clusters bench and dummyCluster are used.
func startServer(ctx context.Context, o options, dir string, d *database, n serverOptions) (_ *server, err error) {
	if n.user == "" {
		n.user = "bench"
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &server{}
	if s.site, err = sitetest.New(dir); err != nil {
		return nil, err
	}
	s.site.Database = d.server
	nowhere, err := sitetest.FreeAddress()
	if err != nil {
		return nil, err
	}
	statement := func(actions ...string) any {
		var resources []string
		for _, kind := range []string{"dbuser", "dbname", "dbgroup"} {
			resources = append(resources, "arn:aws:redshift:us-east-1:123456789012:"+kind+":bench/*")
			if n.dummy != "" {
				resources = append(resources, "arn:aws:redshift:us-east-1:123456789012:"+kind+":"+dummyCluster+"/*")
			}
		}
		return map[string]any{"Version": "2012-10-17", "Statement": []any{
			map[string]any{"Effect": "Allow", "Action": actions, "Resource": resources},
		}}
	}
	var clusters, users, groups []any
	for i := range n.clusters {
		cluster := map[string]any{
			"identifier":             "bench",
			"database":               "bench",
			"upstream":               s.site.Upstream(),
			"upstream_password_file": "upstream.password",
			"prewarm":                map[string]any{"max": n.prewarm},
		}
		if n.parked > 0 {
			cluster["parked_sessions"] = map[string]any{"max": n.parked}
		}
		if i > 0 {
			cluster["identifier"] = fmt.Sprintf("cluster%d", i)
			if !n.answering {
				cluster["upstream"] = "postgres://daypass@" + nowhere + "/postgres?sslmode=disable"
			}
		}
		clusters = append(clusters, cluster)
	}
	if n.dummy != "" {
		clusters = append(clusters, map[string]any{"identifier": dummyCluster, "database": "bench", "upstream_password_file": "upstream.password",
			"upstream": "postgres://daypass@" + n.dummy + "/postgres?sslmode=disable"})
	}
	for i := range n.groups {
		groups = append(groups, map[string]any{"name": fmt.Sprintf("group%d", i),
			"policies": []any{statement("redshift:JoinGroup")}})
	}
	for i := range n.users {
		key := accessKey{fmt.Sprintf("AKIABENCHBENCH%06d", i), fmt.Sprintf("bench/secret/access/key/of/forty/%07d", i)}
		s.keys = append(s.keys, key)
		users = append(users, map[string]any{
			"name":        fmt.Sprintf("user%d", i),
			"access_keys": []any{map[string]any{"id": key.id, "secret": key.secret}},
			"groups":      []string{fmt.Sprintf("group%d", i%n.groups)},
			// A policy of its own for each user would make the file larger than it may be.
			"attached_policies": []string{"issue"},
		})
	}
	config := map[string]any{
		"account":  "123456789012",
		"region":   "us-east-1",
		"data":     s.site.Path("data"),
		"api":      map[string]any{"listen": s.site.API, "limits": map[string]any{"rate": 0}}, // all calls come from one principal
		"audit":    map[string]any{"principal_bytes": 0},
		"gateway":  map[string]any{"listen": s.site.Gateway},
		"clusters": clusters,
		"iam": map[string]any{"users": users, "groups": groups, "policies": []any{
			map[string]any{"name": "issue", "document": statement("redshift:GetClusterCredentials", "redshift:CreateClusterUser")}}},
	}
	if o.profiles != "" {
		if s.admin, err = sitetest.FreeAddress(); err != nil {
			return nil, err
		}
		config["admin"] = map[string]any{"listen": s.admin, "pprof": true}
	}
	text, err := json.Marshal(config) // JSON is YAML
	if err != nil {
		return nil, err
	}
	if err := s.site.Write("daypass.yaml", string(text)); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, o.daypass, "version").Output(); err == nil {
		s.version, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(string(out)), "daypass "), " ")
	}
	if s.Process, err = start(dir, o.daypass, nil, "serve", "--config", s.site.ConfigFile()); err != nil {
		return nil, err
	}
	if err := s.Reachable(ctx, s.site.API, s.site.Gateway); err != nil {
		s.stop()
		log, _ := os.ReadFile(s.site.Path(filepath.Base(o.daypass) + ".log"))
		return nil, fmt.Errorf("%w: %s", err, log[max(0, len(log)-1000):])
	}
	s.login0, err = issue(s.endpoint(1), n.user, true)
	if err != nil {
		s.stop()
	}
	return s, err
}

func (s *server) stop() {
	if s != nil {
		s.Stop()
	}
}

// endpoint returns the API with the keys of this many principals.
func (s *server) endpoint(principals int) endpoint { return endpoint{s.site.API, s.keys[:principals]} }

// login adds the gateway's address to a credential.
func (s *server) login(credential login, sslmode string) login {
	credential.host, credential.port, _ = net.SplitHostPort(s.site.Gateway)
	credential.sslmode = sslmode
	return credential
}

// through returns a login through the gateway.
func (s *server) through(sslmode string) login { return s.login(s.login0, sslmode) }
