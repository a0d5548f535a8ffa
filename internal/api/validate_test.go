package api_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// valid is a request that root is granted; each row of the tests below changes
// one parameter.
func valid(changes ...string) []string {
	form := []string{"Action", "GetClusterCredentials", "DbUser", "alice", "DbName", "dev",
		"ClusterIdentifier", "examplecluster", "DurationSeconds", "900", "AutoCreate", "false",
		"DbGroups.DbGroup.1", "analysts"}
	for i := 0; i < len(changes); i += 2 {
		form = with(form, changes[i], changes[i+1])
	}
	return form
}

// absent takes a parameter out.
const absent = "\x00absent"

func with(form []string, name, value string) []string {
	var out []string
	for i := 0; i < len(form); i += 2 {
		if form[i] != name {
			out = append(out, form[i], form[i+1])
		}
	}
	if value != absent {
		out = append(out, name, value)
	}
	return out
}

const (
	length    = "it must be 1 to 64 characters long."
	colon     = "it must not contain a colon (:) or slash (/)."
	letter    = "it must begin with an ASCII letter."
	character = "it must contain only ASCII letters, numbers, underscore, plus sign, period (dot), at symbol (@), or hyphen."
	several   = " Several groups are several parameters; the AWS CLI separates them by spaces: --db-groups a b."
	lower     = "it must contain only lowercase ASCII letters, numbers, underscore, plus sign, period (dot), at symbol (@), or hyphen."
	reserved  = "it must not be a reserved word."
)

// Every constraint of the API reference on names, for each of the parameters
// that have it.
func TestNames(t *testing.T) {
	s := newServer(t, example(t))
	names := []struct {
		value string
		rule  string // empty: accepted
		// where lists the parameters that the rule applies to; empty: all.
		where string
	}{
		{"a", "", ""},
		{"alice", "", ""},
		{"a1_+.@-z", "", ""},
		{"ana@example.com", "", ""},
		{strings.Repeat("a", 63), "", ""},
		{strings.Repeat("a", 64), "", ""},
		{strings.Repeat("a", 65), length, ""},
		{strings.Repeat("a", 5000), length, ""},
		{"Alice", "", "DbUser DbName"},
		{"ALICE", "", "DbUser DbName"},
		{"Alice", lower, "DbGroups.DbGroup.1"},
		{"analysTs", lower, "DbGroups.DbGroup.1"},
		{"1a", letter, ""},
		{"_a", letter, ""},
		{"-a", letter, ""},
		{"@a", letter, ""},
		{" a", letter, ""},
		{"é", letter, ""},
		{"Ünï", letter, ""},
		{"a:b", colon, ""},
		{"IAM:alice", colon, ""},
		{":", colon, ""},
		{"a/b", colon, ""},
		{"a b", character, "DbUser DbName"},
		{"a b", lower + several, "DbGroups.DbGroup.1"},
		{"a,b", lower + several, "DbGroups.DbGroup.1"},
		{"a, b", lower + several, "DbGroups.DbGroup.1"},
		{"a,", lower, "DbGroups.DbGroup.1"},
		{"a\n", character, "DbUser DbName"},
		{"a\x00b", character, "DbUser DbName"},
		{"a\"b", character, "DbUser DbName"},
		{"a'b", character, "DbUser DbName"},
		{"a$b", character, "DbUser DbName"},
		{"a*", character, "DbUser DbName"},
		{"aé", character, "DbUser DbName"},
		{"ａlice", letter, ""}, // a full-width letter
		{"PUBLIC", "it must not be PUBLIC.", "DbUser"},
		{"public", "it must not be PUBLIC.", "DbUser"},
		{"Public", "it must not be PUBLIC.", "DbUser"},
		{"publican", "", ""},
		{"public", "", "DbName DbGroups.DbGroup.1"},
		{"user", reserved, ""},
		{"select", reserved, ""},
		{"Select", reserved, "DbUser DbName"},
		{"CURRENT_USER_ID", reserved, "DbUser DbName"},
		{"start", reserved, ""},
		{"connect", reserved, ""},
		{"mostly16", reserved, ""},
		{"selected", "", ""},
	}
	for _, n := range names {
		for _, parameter := range []string{"DbUser", "DbName", "DbGroups.DbGroup.1"} {
			if n.where != "" && !strings.Contains(" "+n.where+" ", " "+parameter+" ") {
				continue
			}
			a := s.redshiftCall("root", valid(parameter, n.value)...)
			want := "Invalid value for the parameter " + parameter + ": " + n.rule
			switch {
			case n.rule == "" && a.status != 200:
				t.Errorf("%s=%q: got status %d %s, want 200", parameter, n.value, a.status, a.body)
			case n.rule != "" && a.status == 200:
				t.Errorf("%s=%q was accepted, want: %s", parameter, n.value, want)
			case n.rule != "":
				f := a.fault(t)
				if a.status != 400 || f.Code != "InvalidParameterValue" || f.Message != want {
					t.Errorf("%s=%q: got %d %s %q, want 400 InvalidParameterValue %q",
						parameter, n.value, a.status, f.Code, f.Message, want)
				}
			}
		}
	}
}

// Two groups in one name are refused by the policy, before the name is validated, with a
// hint.
func TestGroupsInOneName(t *testing.T) {
	const want = ". Several groups are several parameters; the AWS CLI separates them by spaces: --db-groups a b"
	spec := example(t)
	spec.Users = append(spec.Users, user("eve", policy(t, "p", `{"Effect":"Allow","Action":"redshift:GetClusterCredentials","Resource":"*"},
		{"Effect":"Allow","Action":"redshift:JoinGroup","Resource":"`+arn+`dbgroup:examplecluster/analysts"}`)))
	s := newServer(t, spec)
	for group, hint := range map[string]bool{"analysts,finance": true, "analysts finance": true, "finance": false} {
		f := s.redshiftCall("eve", valid("DbGroups.DbGroup.1", group)...).fault(t)
		if f.Code != "AccessDenied" || !strings.Contains(f.Message, "dbgroup:examplecluster/"+group) || strings.HasSuffix(f.Message, want) != hint {
			t.Errorf("%s: %s %s", group, f.Code, f.Message)
		}
	}
}

// The developer guide's list, word by word, in either case.
func TestReservedWords(t *testing.T) {
	s := newServer(t, example(t))
	words := strings.Fields(reservedList)
	if len(words) != 159 {
		t.Fatalf("the list has %d words, want 159", len(words))
	}
	for _, word := range words {
		for _, form := range [][]string{valid("DbUser", word), valid("DbName", strings.ToLower(word)),
			valid("DbGroups.DbGroup.1", strings.ToLower(word))} {
			a := s.redshiftCall("root", form...)
			if a.status != 400 || !strings.Contains(a.body, reserved) {
				t.Errorf("%s: got %d %s, want it refused as a reserved word", word, a.status, a.body)
			}
		}
	}
}

const reservedList = `
AES128 AES256 ALL ALLOWOVERWRITE ANALYSE ANALYZE AND ANY ARRAY AS ASC AUTHORIZATION AZ64 BACKUP
BETWEEN BINARY BLANKSASNULL BOTH BYTEDICT BZIP2 CASE CAST CHECK COLLATE COLUMN CONNECT CONSTRAINT
CREATE CREDENTIALS CROSS CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER CURRENT_USER_ID
DEFAULT DEFERRABLE DEFLATE DEFRAG DELTA DELTA32K DESC DISABLE DISTINCT DO ELSE EMPTYASNULL ENABLE
ENCODE ENCRYPT ENCRYPTION END EXCEPT EXPLICIT FALSE FOR FOREIGN FREEZE FROM FULL GLOBALDICT256
GLOBALDICT64K GRANT GROUP GZIP HAVING IDENTITY IGNORE ILIKE IN INITIALLY INNER INTERSECT INTERVAL
INTO IS ISNULL JOIN LANGUAGE LEADING LEFT LIKE LIMIT LOCALTIME LOCALTIMESTAMP LUN LUNS LZO LZOP
MINUS MOSTLY16 MOSTLY32 MOSTLY8 NATURAL NEW NOT NOTNULL NULL NULLS OFF OFFLINE OFFSET OID OLD ON
ONLY OPEN OR ORDER OUTER OVERLAPS PARALLEL PARTITION PERCENT PERMISSIONS PIVOT PLACING PRIMARY RAW
READRATIO RECOVER REFERENCES REJECTLOG RESORT RESPECT RESTORE RIGHT SELECT SESSION_USER SIMILAR
SNAPSHOT SOME START SYSDATE SYSTEM TABLE TAG TDES TEXT255 TEXT32K THEN TIMESTAMP TO TOP TRAILING
TRUE TRUNCATECOLUMNS UNION UNIQUE UNNEST UNPIVOT USER USING VERBOSE WALLET WHEN WHERE WITH WITHOUT`

// Everything else that can be wrong with a GetClusterCredentials request.
func TestParameters(t *testing.T) {
	s := newServer(t, example(t))
	const invalid = "InvalidParameterValue"
	rows := []struct {
		name    string
		form    []string
		status  int
		code    string
		message string
	}{
		{"all given", valid(), 200, "", ""},
		{"only what is required", []string{"Action", "GetClusterCredentials", "DbUser", "alice", "ClusterIdentifier", "examplecluster"}, 200, "", ""},
		{"no DbUser", valid("DbUser", absent), 400, "MissingParameter", "The request must contain the parameter DbUser."},
		{"empty DbUser", valid("DbUser", ""), 400, invalid, "The parameter DbUser must be provided and must not be blank."},
		{"DbUser a list", valid("DbUser", absent, "DbUser.member.1", "alice"), 400, invalid, "Invalid value for the parameter DbUser: it must be a single value."},
		{"empty DbName", valid("DbName", ""), 400, invalid, "The parameter DbName must be provided and must not be blank."},
		{"no DbName", valid("DbName", absent), 200, "", ""},
		{"no cluster", valid("ClusterIdentifier", absent), 400, "MissingParameter", "The request must contain the parameter ClusterIdentifier or CustomDomainName."},
		{"empty cluster", valid("ClusterIdentifier", ""), 400, "MissingParameter", "The request must contain the parameter ClusterIdentifier or CustomDomainName."},
		{"both empty", valid("ClusterIdentifier", "", "CustomDomainName", ""), 400, "MissingParameter", "The request must contain the parameter ClusterIdentifier or CustomDomainName."},
		{"unknown cluster", valid("ClusterIdentifier", "nosuch"), 404, "ClusterNotFound", "Cluster nosuch not found."},
		{"cluster in another case", valid("ClusterIdentifier", "ExampleCluster"), 404, "ClusterNotFound", "Cluster ExampleCluster not found."},
		{"custom domain", valid("ClusterIdentifier", absent, "CustomDomainName", "warehouse.example.com"), 200, "", ""},
		{"custom domain, empty cluster", valid("ClusterIdentifier", "", "CustomDomainName", "Warehouse.Example.com"), 200, "", ""},
		{"empty custom domain", valid("CustomDomainName", ""), 200, "", ""},
		{"endpoint address as custom domain", valid("ClusterIdentifier", absent, "CustomDomainName", "other.example.com"), 200, "", ""},
		{"unknown custom domain", valid("ClusterIdentifier", absent, "CustomDomainName", "no.example.com"), 404, "ClusterNotFound", "Cluster no.example.com not found."},
		{"domain and cluster agree", valid("CustomDomainName", "warehouse.example.com"), 200, "", ""},
		{"domain and cluster differ", valid("CustomDomainName", "other.example.com"), 400, "InvalidParameterCombination", "The parameters ClusterIdentifier and CustomDomainName do not name the same cluster."},
		{"899 seconds", valid("DurationSeconds", "899"), 400, invalid, "Invalid value for the parameter DurationSeconds: it must be between 900 and 3600."},
		{"3601 seconds", valid("DurationSeconds", "3601"), 400, invalid, "Invalid value for the parameter DurationSeconds: it must be between 900 and 3600."},
		{"-900 seconds", valid("DurationSeconds", "-900"), 400, invalid, "Invalid value for the parameter DurationSeconds: it must be between 900 and 3600."},
		{"900 seconds", valid("DurationSeconds", "900"), 200, "", ""},
		{"3600 seconds", valid("DurationSeconds", "3600"), 200, "", ""},
		{"seconds that are none", valid("DurationSeconds", "15m"), 400, invalid, "Invalid value for the parameter DurationSeconds: it must be an integer."},
		{"too many seconds for a number", valid("DurationSeconds", "99999999999999999999"), 400, invalid, "Invalid value for the parameter DurationSeconds: it must be an integer."},
		{"empty seconds", valid("DurationSeconds", ""), 400, invalid, "Invalid value for the parameter DurationSeconds: it must be an integer."},
		{"AutoCreate true", valid("AutoCreate", "true"), 200, "", ""},
		{"AutoCreate yes", valid("AutoCreate", "yes"), 400, invalid, "Invalid value for the parameter AutoCreate: it must be true or false."},
		{"AutoCreate empty", valid("AutoCreate", ""), 400, invalid, "Invalid value for the parameter AutoCreate: it must be true or false."},
		{"empty list of groups", valid("DbGroups.DbGroup.1", absent, "DbGroups", ""), 200, "", ""},
		{"an empty group", valid("DbGroups.DbGroup.1", ""), 400, invalid, "The parameter DbGroups.DbGroup.1 must be provided and must not be blank."},
		{"groups as members", valid("DbGroups.DbGroup.1", absent, "DbGroups.member.1", "analysts"), 200, "", ""},
		{"a second group that is bad", valid("DbGroups.DbGroup.2", "A"), 400, invalid, "Invalid value for the parameter DbGroups.DbGroup.2: " + lower},
		{"groups as text", valid("DbGroups.DbGroup.1", absent, "DbGroups", "analysts"), 400, invalid, "Invalid value for the parameter DbGroups: it must be a list."},
		{"one group twice", valid("DbGroups.DbGroup.2", "analysts"), 200, "", ""},
		{"50 groups", valid(groups(50)...), 200, "", ""},
		{"50 groups of 48", valid(longGroups(48)...), 200, "", ""},
		{"50 groups of 64", valid(longGroups(64)...), 400, invalid, "Invalid value for the parameter DbGroups: it must have fewer characters in all: the password would be longer than 4096 characters. 2400 characters of groups fit."},
		{"a gap", valid("DbGroups.DbGroup.1", absent, "DbGroups.DbGroup.2", "analysts"), 400, invalid, "Invalid value for the parameter DbGroups: it must have members numbered without a gap: DbGroups.DbGroup.1 is missing."},
		{"51 groups", valid(groups(51)...), 400, invalid, "Invalid value for the parameter DbGroups: it must not have more than 50 members."},
		{"51 groups, two of them the same", valid(append(groups(50), "DbGroups.DbGroup.51", "g1")...), 400, invalid, "Invalid value for the parameter DbGroups: it must not have more than 50 members."},
		{"a parameter that does not exist", valid("Colour", "red"), 200, "", ""},
		{"a parameter twice", append(valid(), "DbUser", "root"), 400, "InvalidQueryParameter", "The parameter DbUser must not be given more than once."},
		{"unknown action", []string{"Action", "DropEverything"}, 400, "InvalidAction", "Could not find operation DropEverything for version 2012-12-01"},
		{"action in another case", []string{"Action", "getclustercredentials"}, 400, "InvalidAction", "Could not find operation getclustercredentials for version 2012-12-01"},
		{"no action", []string{"DbUser", "alice"}, 400, "MissingAction", "The request must contain the parameter Action."},
		{"action of another service", []string{"Action", "GetCallerIdentity"}, 400, "InvalidAction", "Could not find operation GetCallerIdentity for version 2012-12-01"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			a := s.redshiftCall("root", row.form...)
			if row.code == "" {
				if a.status != row.status {
					t.Fatalf("got %d %s, want %d", a.status, a.body, row.status)
				}
				return
			}
			f := a.fault(t)
			if a.status != row.status || f.Code != row.code || f.Message != row.message {
				t.Errorf("got %d %s %q, want %d %s %q", a.status, f.Code, f.Message, row.status, row.code, row.message)
			}
			if line := s.lastLine(); line.ErrorCode != row.code || line.ErrorMessage != row.message {
				t.Errorf("audit line has %s %q, want %s %q", line.ErrorCode, line.ErrorMessage, row.code, row.message)
			}
		})
	}
}

// longGroups are 50 groups of n characters.
func longGroups(n int) []string {
	var form []string
	for i := 1; i <= 50; i++ {
		form = append(form, "DbGroups.DbGroup."+strconv.Itoa(i), fmt.Sprintf("g%0*d", n-1, i))
	}
	return form
}

func groups(n int) []string {
	var form []string
	for i := 1; i <= n; i++ {
		form = append(form, "DbGroups.DbGroup."+strconv.Itoa(i), "g"+strconv.Itoa(i))
	}
	return form
}
