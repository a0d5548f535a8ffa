package awscli_test

import "strings"

// awsCase is a command line that both the AWS CLI and this package run.
type awsCase struct {
	args     []string // the words after "redshift"; STUB stands for the URL of the stub
	scenario string
	code     int               // the exit code that we want: version 2's
	env      map[string]string // in addition to the usual credentials and region; "" unsets
	config   string            // the content of ~/.aws/config
	// ours replaces the AWS CLI's message on standard error if our message says more. Everything
	// else must be equal.
	ours string
}

const (
	usage         = 252
	configuration = 253
	service       = 254
	general       = 255
)

func credentials(more ...string) []string {
	return append([]string{"get-cluster-credentials", "--db-user", "alice", "--cluster-identifier", "examplecluster"}, more...)
}

func clusters(more ...string) []string {
	return append([]string{"describe-clusters"}, more...)
}

func bare(args ...string) []string { return append([]string{"get-cluster-credentials"}, args...) }

// awsCases are run against both.
func awsCases() []awsCase {
	var all []awsCase
	// Formats and queries, each with each.
	for _, format := range []string{"json", "text", "table"} {
		output := []string{"--output", format}
		for _, query := range []string{
			"", "DbUser", "[DbUser, DbPassword]", "{u: DbUser, p: DbPassword}", "{p: DbPassword, a: DbUser, A: Expiration}", "missing", "[missing]", "{a: missing}",
			"keys(@)", "length(@)", "`[]`", "`{}`", "`0`", "`[0, false, null, \"\"]`", "`{\"b\": [1, 2], \"a\": {\"c\": 1.50}}`", "`[[1, 2], [3, 4]]`", "`[[1, [2]], 3]`",
			"`[{\"a\": 1}, {\"a\": [2], \"b\": {\"c\": \"x\"}}]`", "`[\"a\", [\"b\"]]`", "`\"\"`", "`true`", "`{\"k\": []}`", "`{\"ß\": [1]}`", "`[{}]`", "`[{}, {\"a\": 1}]`", "`[[], [1]]`", "`{\"a\": {}}`", "`1e22`", "`-0.0`", "`\"a\\nb\\t\\u0001\"`",
		} {
			args := append(credentials(), output...)
			code := 0
			if query != "" {
				args = append(args, "--query", query)
			}
			if format == "table" && query == "`[[], [1]]`" {
				code = general // rows of differing length
			}
			all = append(all, awsCase{args: args, code: code})
		}
		for _, query := range []string{
			"", "Clusters[].ClusterIdentifier", "Clusters[*].[ClusterIdentifier, DBName]", "Clusters[].{id: ClusterIdentifier, port: Endpoint.Port}",
			"Clusters[0].Endpoint", "Clusters[?NumberOfNodes > `1`].ClusterIdentifier | [0]", "sort_by(Clusters, &ClusterIdentifier)[].Endpoint.Address", "Clusters[].Tags", "Clusters[0]", "*", "Clusters[].Encrypted",
		} {
			for _, scenario := range []string{"", "bare clusters", "mixed clusters", "pages", "no clusters", "no list"} {
				args := clusters(output...)
				if query != "" {
					args = append(args, "--query", query)
				}
				code := 0
				if scenario == "no list" && strings.HasPrefix(query, "sort_by") || format == "table" && scenario == "mixed clusters" && query == "Clusters[].Tags" {
					code = general
				}
				all = append(all, awsCase{args: args, scenario: scenario, code: code})
			}
		}
		for _, scenario := range []string{"odd password", "no expiry", "unknown", "empty", "wide", "no namespace"} {
			all = append(all, awsCase{args: append(credentials(), output...), scenario: scenario})
		}
		for _, more := range [][]string{
			{"--max-items", "1"}, {"--max-items", "2"}, {"--max-items", "3"}, {"--max-items", "4"}, {"--max-items", "5"}, {"--max-items", "9"}, {"--page-size", "2"},
			{"--no-paginate"}, {"--marker", "m2"}, {"--max-records", "20"}, {"--max-items", "1", "--query", "Clusters[].ClusterIdentifier"},
			{"--max-items", "2", "--starting-token", "eyJNYXJrZXIiOiBudWxsLCAiYm90b190cnVuY2F0ZV9hbW91bnQiOiAxfQ=="},
			{"--starting-token", "m3"}, {"--starting-token", "m2___1"}, {"--starting-token", "None___1"}, {"--starting-token", "eyJNYXJrZXIiOiAibTIifQ==", "--page-size", "20"},
		} {
			all = append(all, awsCase{args: append(clusters(output...), more...), scenario: "pages"})
		}
		all = append(all,
			awsCase{args: append(clusters(output...), "--color", "on"), scenario: "mixed clusters"},
			awsCase{args: append(clusters(output...), "--color", "off")},
			awsCase{args: append(credentials(output...), "--color", "on")},
			awsCase{args: append(credentials(output...), "--generate-cli-skeleton", "output")},
			awsCase{args: append(credentials(output...), "--generate-cli-skeleton", "output", "--query", "Expiration")},
			awsCase{args: append(credentials(output...), "--generate-cli-skeleton", "output", "--query", "{t: type(Expiration), s: to_string(Expiration), l: [Expiration]}")},
			awsCase{args: append(clusters(output...), "--generate-cli-skeleton", "output")},
			awsCase{args: append(clusters(output...), "--generate-cli-skeleton", "output", "--query", "Clusters[0].Endpoint")},
			awsCase{args: append([]string{"get-cluster-credentials-with-iam"}, output...)},
			awsCase{args: append(clusters(output...), "--query", "Clusters[0].RestoreStatus"), scenario: "odd values"},
			awsCase{args: clusters(output...), scenario: "odd values"},
		)
	}
	all = append(all, parameterCases()...)
	all = append(all, skeletonCases()...)
	all = append(all, failureCases()...)
	return append(all, settingsCases()...)
}

func parameterCases() []awsCase {
	ok := func(args ...string) awsCase { return awsCase{args: args} }
	return []awsCase{
		ok(credentials()...),
		ok(credentials("--db-name", "dev", "--duration-seconds", "1800", "--auto-create", "--db-groups", "a", "b", "--custom-domain-name", "db.example.com")...),
		ok(credentials("--auto-create")...),
		ok(credentials("--no-auto-create")...),
		ok(credentials("--auto-create", "--no-auto-create")...),
		ok(credentials("--no-auto-create", "--auto-create")...),
		ok(credentials("--db-groups", `["a", "b"]`)...),
		ok(credentials("--db-groups", `[]`)...),
		ok(credentials("--db-groups")...),
		ok(credentials("--db-groups", "a", "--db-groups", "b", "c")...),
		ok(credentials("--db-groups", "")...),
		ok(credentials("--db-groups=a")...),
		ok(credentials("--db-groups", `["a"]`, `["b"]`)...),
		ok(credentials("--db-groups", "file://groups.json")...),
		ok(credentials("--db-groups", "a b", "é+&=%")...),
		ok(credentials("--duration-seconds", "1")...),
		ok(credentials("--duration-seconds", "-5")...),
		ok(credentials("--duration-seconds", " 9_00 ")...),
		ok(credentials("--duration-seconds", "99999999999999999999")...),
		ok(credentials("--duration-seconds", "file://duration.txt")...),
		ok(bare("--db-user", "file://user.txt")...),
		ok(bare("--db-user", "file://user-bare.txt")...),
		ok(bare("--db-user", "")...),
		ok(bare("--db-user", "a@b.com+c-d ~*'é\n")...),
		ok(bare("--db-user=alice")...),
		ok(bare("--db-user=--alice")...),
		ok(bare("--db-user=")...),
		ok(bare("--db-user", "-1")...),
		ok(bare("--db-user", "-x y")...),
		ok(bare("--db-user", "a", "--db-user", "b")...),
		ok(bare("--db-u", "alice", "--cluster-id", "c", "--dur", "901", "--auto", "--db-g", "x")...),
		ok(bare("--db-u=alice", "--no-au")...),
		ok(append([]string{"--output", "text"}, credentials()...)...),
		ok(append([]string{"--out", "text", "--q", "DbUser"}, credentials()...)...),
		ok(credentials("--region", "eu-central-1", "--no-sign-request")...),
		ok(credentials("--no-verify-ssl", "--cli-read-timeout", "5", "--cli-connect-timeout", "0", "--no-paginate")...),
		ok(bare("--cli-input-json", `{"DbUser": "alice"}`)...),
		ok(bare("--cli-input-json", "file://input.json")...),
		ok(bare("--cli-input-json", "file://input.json", "--db-groups", "three", "--no-auto-create")...),
		ok(bare("--cli-input-json", "file://input.json", "--db-user", "bob", "--db-name", "dev")...),
		ok(bare("--cli-input-json", `{"DbUser": "alice", "DurationSeconds": 900, "AutoCreate": false, "DbGroups": []}`)...),
		ok(bare("--cli-input-json", `{"DbUser": "alice", "DurationSeconds": true}`)...),
		ok(bare("--cli-input-json", `{"DbUser": "a", "DbUser": "b"}`)...),
		ok(bare("--cli-input-json", "{}", "--db-user", "alice")...),
		ok(bare("--cli-input", `{"DbUser": "alice"}`, "--db-user", "alice")...),
		ok("get-cluster-credentials-with-iam", "--cluster-identifier", "c", "--db-name", "d", "--duration-seconds", "900", "--custom-domain-name", "x.example.com"),
		ok(clusters("--cluster-identifier", "c", "--tag-keys", "a", "b", "--tag-values", "c")...),
		ok(clusters("--tag-keys")...),
		{args: clusters("--page-size", "20", "--max-items", "2"), scenario: "pages"},
		{args: clusters("--cli-input-json", `{"MaxRecords": 20, "Marker": "m3"}`), scenario: "pages"},
		{args: clusters("--cli-input-json", `{"MaxRecords": 20, "Marker": "m2"}`, "--max-items", "1"), scenario: "pages"},
		{args: clusters("--max-items", "0"), scenario: "pages"},
		{args: clusters("--max-items", "-1"), scenario: "pages"},
		{args: clusters("--no-paginate", "--max-items", "0"), scenario: "pages", code: usage},
		{args: clusters("--no-paginate", "--page-size", "0"), scenario: "pages", code: usage},
	}
}

func skeletonCases() []awsCase {
	var all []awsCase
	for _, operation := range []string{"get-cluster-credentials", "get-cluster-credentials-with-iam", "describe-clusters"} {
		for _, form := range [][]string{{"--generate-cli-skeleton"}, {"--generate-cli-skeleton", "input"}, {"--generate-cli-skeleton=input"}} {
			all = append(all, awsCase{args: append([]string{operation, "--cli-input-json", "{}"}, form...)})
		}
	}
	return append(all,
		awsCase{args: bare("--generate-cli-skeleton")},
		awsCase{args: bare("--generate-cli-skeleton", "--output", "text")},
		awsCase{args: bare("--gen", "--db-user", "alice")},
		awsCase{args: bare("--generate-cli-skeleton"), env: map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_DEFAULT_REGION": ""}},
		awsCase{args: bare("--generate-cli-skeleton", "output"), code: usage},
		awsCase{args: credentials("--generate-cli-skeleton", "output"), env: map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}},
		awsCase{args: credentials("--generate-cli-skeleton", "output"), env: map[string]string{"AWS_DEFAULT_REGION": ""}, code: configuration},
		awsCase{args: credentials("--generate-cli-skeleton", "output", "--duration-seconds", "1")},
		awsCase{args: bare("--generate-cli-skeleton", "output", "--cli-input-json", `{"DbUser": 5}`), code: usage},
		awsCase{args: clusters("--generate-cli-skeleton", "output", "--max-items", "1"), code: usage},
		awsCase{args: bare("--generate-cli-skeleton", "wrong"), code: usage, ours: "daypass: error: argument --generate-cli-skeleton: Invalid choice, valid choices are:"},
	)
}

func failureCases() []awsCase {
	all := []awsCase{
		{args: bare(), code: usage},
		{args: bare("--cluster-identifier", "c"), code: usage},
		{args: credentials("--bogus", "1"), code: usage},
		{args: credentials("--bogus"), code: usage},
		{args: credentials("word"), code: usage},
		{args: credentials("one", "two"), code: usage},
		{args: bare("--bogus", "1", "--db-user", "alice"), code: usage},
		{args: credentials("--db-name"), code: usage},
		{args: bare("--db-user", "--db-name", "x"), code: usage},
		{args: credentials("--db"), code: usage},
		{args: credentials("--c"), code: usage, ours: "daypass: error: ambiguous option: --c could match --color, --ca-bundle, --cli-read-timeout, --cli-connect-timeout"},
		{args: credentials("--auto-create=true"), code: usage},
		{args: credentials("--duration-seconds", "abc"), code: usage},
		{args: credentials("--duration-seconds", "1.5"), code: usage},
		{args: credentials("--duration-seconds", ""), code: usage},
		{args: clusters("--page-size", "abc"), code: usage},
		{args: clusters("--max-items", "1.5"), code: usage},
		{args: clusters("--no-paginate", "--max-items", "1"), code: general},
		{args: clusters("--no-paginate", "--max-items", "1", "--page-size", "20", "--starting-token", "x"), code: general},
		{args: clusters("--marker", "m2", "--max-items", "1"), code: general},
		{args: clusters("--starting-token", "a___b___c"), code: usage},
		{args: clusters(), scenario: "same token", code: general},
		{args: credentials("--query", "a["), code: usage},
		{args: credentials("--query", ""), code: usage},
		{args: credentials("--query", "a b"), code: usage},
		{args: credentials("--query", "foo(@)"), code: general},
		{args: credentials("--query", "length(`1`)"), code: general},
		{args: credentials("--query", "abs(DbUser)"), code: general},
		{args: credentials("--output", "text", "--query", "`[{\"a\": 1}, 2]`"), code: general},
		{args: credentials("--output", "table", "--query", "`[[1, 2], [3]]`"), code: general},
		{args: credentials("--output", "table", "--query", "`[1, [2, 3]]`"), code: general},
		{args: credentials("--cli-read-timeout", "abc"), code: usage},
		{args: credentials("--endpoint-url", "127.0.0.1:1"), code: usage},
		{args: bare("--db-user", "file://nope.txt"), code: usage},
		{args: credentials("--db-groups", "file://nope.json"), code: usage},
		{args: credentials("--db-groups", `["a"`), code: usage},
		{args: credentials("--db-groups", `[1, null]`), code: usage},
		{args: bare("--cli-input-json", "file://broken.json"), code: usage},
		{args: bare("--cli-input-json", "nope"), code: usage},
		{args: bare("--cli-input-json", ""), code: usage},
		{args: bare("--cli-input-json", "file://nope.json"), code: usage},
		{args: bare("--cli-input-json", "[]"), code: usage},
		{args: bare("--cli-input-json", "null"), code: usage},
		{args: bare("--cli-input-json", "{}"), code: usage},
		{args: bare("--cli-input-json", `{"DbUser": 5}`), code: usage},
		{args: bare("--cli-input-json", `{"DbUser": null}`), code: usage},
		{args: bare("--cli-input-json", `{"DbUser": "a", "DurationSeconds": "900"}`), code: usage},
		{args: bare("--cli-input-json", `{"DbUser": "a", "DurationSeconds": 900.5}`), code: usage},
		{args: bare("--cli-input-json", `{"DbUser": "a", "AutoCreate": "true"}`), code: usage},
		{args: bare("--cli-input-json", `{"DbUser": "a", "AutoCreate": 1}`), code: usage},
		{args: bare("--cli-input-json", `{"DbUser": "a", "DbGroups": "x"}`), code: usage},
		{args: bare("--cli-input-json", `{"DbUser": "a", "DbGroups": [1, {"b": [true, null, "it's"]}]}`), code: usage},
		{args: bare("--cli-input-json", `{"Bogus": 1, "dbuser": "x"}`), code: usage},
		{args: clusters("--cli-input-json", `{"TagKeys": {}}`), code: usage},
		{args: []string{}, code: usage},
		{args: []string{"--debug"}, code: usage},
		{args: []string{"get-cluster-credential"}, code: usage, ours: "maybe you meant"},
		{args: credentials("--output", "xml"), code: usage, ours: "daypass: error: argument --output: Invalid choice, valid choices are:"},
		{args: credentials("--color", "maybe"), code: usage},
		{args: clusters(), scenario: "bad port", code: general},
		{args: clusters(), scenario: "empty port", code: general},
		{args: credentials(), scenario: "no wrapper", code: general, ours: "'GetClusterCredentialsResult'"},
		{args: credentials(), scenario: "not xml", code: general, ours: "Unable to parse response"},
		{args: credentials(), scenario: "half xml", code: general, ours: "Unable to parse response"},
		{args: credentials(), scenario: "404 html", code: general, ours: "Unable to parse response"},
		{args: credentials("--endpoint-url", "http://127.0.0.1:1"), code: general, env: map[string]string{"AWS_MAX_ATTEMPTS": "1"}},
	}
	for _, prefix := range []string{"file://", "fileb://"} {
		for _, path := range []string{"nope.json", "none/nope.json", ".", "user.txt/nope.json"} {
			for _, option := range []string{"--cli-input-json", "--db-user"} {
				all = append(all, awsCase{args: bare(option, prefix+path), code: usage})
			}
			all = append(all, awsCase{args: credentials("--db-groups", prefix+path), code: usage})
			all = append(all, awsCase{args: credentials("--duration-seconds", prefix+path), code: usage})
			all = append(all, awsCase{args: clusters("--starting-token", prefix+path), code: usage})
		}
	}
	for _, args := range [][]string{
		bare("--cli-input-json", "file://latin1.json"), bare("--db-user", "file://latin1.json"), credentials("--db-groups", "file://latin1.json"),
		credentials("--duration-seconds", "file://latin1.json"), clusters("--starting-token", "file://latin1.json"), bare("--cli-input-json", "file://user.txt"),
		bare("--cli-input-json", "file://groups.json"), credentials("--duration-seconds", "file://user.txt"),
	} {
		all = append(all, awsCase{args: args, code: usage})
	}
	for _, scenario := range []string{"not found", "denied", "bad token", "unsupported", "ünicode", "ec2 style", "no code", "no message", "empty text"} {
		all = append(all, awsCase{args: credentials(), scenario: scenario, code: service})
		all = append(all, awsCase{args: clusters("--output", "text"), scenario: scenario, code: service})
	}
	for _, scenario := range []string{"internal", "html", "nothing"} {
		all = append(all, awsCase{args: credentials(), scenario: scenario, code: service, env: map[string]string{"AWS_MAX_ATTEMPTS": "2", "AWS_RETRY_MODE": "standard"}})
	}
	return all
}

func settingsCases() []awsCase {
	return []awsCase{
		{args: credentials(), env: map[string]string{"AWS_DEFAULT_OUTPUT": "text"}},
		{args: credentials("--output", "json"), env: map[string]string{"AWS_DEFAULT_OUTPUT": "text"}},
		{args: credentials(), config: "[default]\noutput = table\n"},
		{args: credentials(), config: "[default]\noutput = table\n", env: map[string]string{"AWS_DEFAULT_OUTPUT": "text"}},
		{args: credentials("--profile", "p"), config: "[default]\noutput = table\n[profile p]\noutput=text\naws_access_key_id=AKIAEXAMPLE\naws_secret_access_key=x\n"},
		{args: credentials(), config: "[profile p]\noutput=text\n", env: map[string]string{"AWS_PROFILE": "p"}},
		{args: credentials(), config: "[profile p]\noutput=text\n[profile q]\noutput=table\n", env: map[string]string{"AWS_PROFILE": "p", "AWS_DEFAULT_PROFILE": "q"}},
		{args: credentials("--profile", "nope"), code: configuration},
		{args: credentials(), env: map[string]string{"AWS_PROFILE": "nope"}, code: configuration},
		{args: credentials(), env: map[string]string{"AWS_DEFAULT_REGION": ""}, config: "[default]\nregion = eu-west-1\n"},
		{args: credentials(), env: map[string]string{"AWS_DEFAULT_REGION": ""}, code: configuration},
		{args: credentials("--region", "not a region"), code: configuration},
		{args: credentials(), env: map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, code: configuration},
		{args: credentials("--no-sign-request"), env: map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}},
		{args: credentials(), env: map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, config: "[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = x\n"},
		{args: credentials(), config: "[default]\ncli_timestamp_format = iso8601\n"},
		{args: clusters("--output", "text"), config: "[default]\ncli_timestamp_format = iso8601\n"},
		{args: credentials(), config: "[default]\ncli_timestamp_format = none\n"},
		{args: credentials(), config: "[default]\ncli_timestamp_format = wire\n"},
		{args: credentials(), config: "[default]\ncli_timestamp_format = sometimes\n", code: configuration},
		{args: credentials(), env: map[string]string{"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_REDSHIFT": "STUB"}, config: "noflag"},
		{args: credentials(), env: map[string]string{"AWS_ENDPOINT_URL": "STUB"}, config: "noflag"},
		{args: credentials(), config: "noflag[default]\nservices = local\n[services local]\nredshift =\n  endpoint_url = STUB\n"},
		{args: credentials(), config: "noflag[default]\nendpoint_url = STUB\n"},
		{args: credentials(), env: map[string]string{"AWS_ENDPOINT_URL": "EMPTY"}, config: "noflag[default]\nendpoint_url = http://127.0.0.1:1\nservices = local\n[services local]\nredshift =\n  endpoint_url = STUB\n"},
		{args: credentials(), env: map[string]string{"AWS_ENDPOINT_URL": "STUB", "AWS_ENDPOINT_URL_REDSHIFT": "EMPTY"}, config: "noflag[default]\nservices = local\n[services local]\nredshift =\n  endpoint_url = http://127.0.0.1:1\n"},
		{args: credentials(), env: map[string]string{"AWS_ENDPOINT_URL": "STUB"}, config: "noflag[default]\nservices = gone\n"},
		{args: credentials(), env: map[string]string{"AWS_ENDPOINT_URL_REDSHIFT": "STUB"}, config: "noflag[default]\nservices = gone\n"},
		{args: credentials(), env: map[string]string{"AWS_ENDPOINT_URL_REDSHIFT": "STUB", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, code: configuration,
			config: "noflag[default]\nservices = gone\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = b\n[profile b]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = secret\n"},
		{args: credentials(), config: "noflag[default]\nservices = gone\n", code: configuration},
		{args: credentials(), config: "noflag[default]\nendpoint_url = STUB\nservices = local\n[services local]\nsts =\n  endpoint_url = http://127.0.0.1:1\n"},
		{args: credentials(), env: map[string]string{"AWS_PROFILE": "p", "AWS_DEFAULT_PROFILE": "q"}, config: "noflag[profile p]\nendpoint_url = http://127.0.0.1:1\n[profile q]\nendpoint_url = STUB\n"},
		{args: credentials(), env: map[string]string{"AWS_ENDPOINT_URL": "127.0.0.1:8440"}, config: "noflag", code: configuration},
		{args: credentials(), env: map[string]string{"AWS_ENDPOINT_URL": "localhost"}, config: "noflag", code: configuration},
		{args: credentials(), env: map[string]string{"AWS_ENDPOINT_URL": "http://"}, config: "noflag", code: configuration},
		{args: credentials(), env: map[string]string{"AWS_ENDPOINT_URL": "http://-x"}, config: "noflag", code: configuration},
		{args: credentials(), env: map[string]string{"AWS_ENDPOINT_URL": "ftp://127.0.0.1"}, config: "noflag", code: configuration, ours: "neither http nor https"},
		{args: credentials("--endpoint-url", "http://"), code: usage},
		{args: credentials("--endpoint-url", "ftp://127.0.0.1"), code: usage, ours: "neither http nor https"},
		{args: credentials(), env: map[string]string{"AWS_SECRET_ACCESS_KEY": ""}, code: configuration},
		{args: credentials(), env: map[string]string{"AWS_SECRET_ACCESS_KEY": "EMPTY"}, config: "[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = x\n", code: configuration},
		{args: credentials("--no-sign-request"), env: map[string]string{"AWS_SECRET_ACCESS_KEY": ""}},
		{args: credentials(), env: map[string]string{"AWS_ACCESS_KEY_ID": ""}, config: "[default]\naws_access_key_id = AKIAEXAMPLE\n", code: configuration},
	}
}
