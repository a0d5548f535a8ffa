package doctor

import (
	"strings"
	"testing"
)

// TestMask: each text contains something that must not be in an issue, and something that must
// stay for the report to be useful.
func TestMask(t *testing.T) {
	for _, test := range []struct{ text, not, keep string }{
		{`dial tcp: lookup db.internal.example.com on 10.20.30.40:53: no such host`, "db.internal.example.com", "no such host"},
		{`dial tcp 10.20.30.40:5432: connect: connection refused`, "10.20.30.40", ":5432: connect: connection refused"},
		{`dial tcp [2001:db8::17]:5432: i/o timeout`, "2001:db8", "i/o timeout"},
		{`User: arn:aws:iam::210987654321:user/x is not authorized`, "210987654321", "is not authorized"},
		{`open /home/jane.doe/customer/daypass.yaml: permission denied`, "jane", "daypass.yaml: permission denied"},
		{`open C:\Users\Jane\daypass.yaml: denied`, "Jane", "daypass.yaml: denied"},
		{`/etc/daypass/db.example.com.crt expired`, "example", ".crt expired"},
		{`the key AKIAIOSFODNN7EXAMPLE is refused`, "IOSFODNN", "is refused"},
		{`postgres://daypass:hunter2@db:5432/x?sslmode=require is wrong`, "hunter2", "sslmode=require is wrong"},
		{`cannot parse "host=db password=hunter2 user=x"`, "hunter2", "user="},
		{`secret: "tops3cret"`, "tops3cret", "secret: "},
		{`upstream_password: tops3cret`, "tops3cret", "upstream_password: "},
		{`got FwoGZXIvYXdzEBYaDEXAMPLEtokenThatIsLong1234567890`, "FwoGZXIvYXdz", "got "},
		{`mail jane@example.com about it`, "jane", "about it"},
		{"-----BEGIN PRIVATE KEY-----\nMIGHAgEA\n-----END PRIVATE KEY----- is no key", "MIGHAgEA", "is no key"},
		{`server warehouse-primary refused`, "warehouse-primary", "refused"},
		{`it said planted-secret-1 and PLANTED in turn`, "planted-secret-1", "in turn"},
		{`cluster "acme-billing" cannot be reached`, "acme", "cannot be reached"},
		{`arn:aws:redshift:us-east-1:1:dbuser:acme-billing/alice`, "acme", ":dbuser:"},
		{`cluster "keys" cannot be reached`, `"keys"`, "cannot be reached"},
		{`run daypass keys list`, "\x00", "run daypass keys list"},
		{`daypass.yaml:13: iam.users[0].access_keys[0].secret_file: open /x/ana.secret: permission denied`, "/x/", "iam.users[0].access_keys[0].secret_file: open …/ana.secret: permission denied"},
		{`daypass.yaml:13: clusters[0].upstream_password_file: open /run/x/password: no such file or directory`, "/run", "open …/password: no such file or directory"},
		{`read /run/x/token: is a directory`, "/run", "read …/token: is a directory"},
		{`open /run/x/secret: too many open files`, "/run", "…/secret: too many open files"},
		{`daypass.yaml:9: iam.users[0].access_keys[0].secret: is empty`, "\x00", "].secret: is empty"},
		{`daypass.yaml:9: iam.users[0].access_keys[0].secret: has 5 characters, want 8`, "\x00", "].secret: has 5 characters"},
		{`password: no`, "no", "password: "},
		{`password: no such`, "no", "such"},
		{`password=no such file or directory`, "no", "such file"},
		{`password: permission`, "permission", "password: "},
		{`daypass.yaml:4: sign_in.client_id: is empty`, "[host", "sign_in.client_id: is empty"},
		{`tls: failed to verify certificate: x509: certificate is valid for pgprod, localhost, not 127.0.0.1`, "pgprod", "localhost, not 127.0.0.1"},
		{`x509: certificate is not valid for any names, but wanted to match pgprod`, "pgprod", "not valid for any names"},
		{`FATAL: password authentication failed for user "acme_admin" (SQLSTATE 28P01)`, "acme", "password authentication failed for user"},
		{`FATAL: database "acme" does not exist`, "acme", "does not exist"},
		{`the administrative login "daypass" has no CREATEROLE`, "\x00", `login "daypass" has no`},
		{`User: arn:aws:iam::210987654321:user/jane.doe is not authorized to perform: redshift:DescribeClusters`, "jane", "redshift:DescribeClusters"},
		{`arn:aws:sts::210987654321:assumed-role/analysts/jane@acme may not`, "jane", "assumed-role/[name] may not"},
		{`parse "postgres://u:p4/ss@word@db01/x": invalid port ":p4" after host`, "p4", "after host"},
		{`parse "postgres://u:p4 ssword@db01/x": invalid character " " in host name`, "ssword", "in host name"},
		{`postgres://u:p4@ssword@db01/x is wrong`, "ssword", "is wrong"},
		{`https://s3cr3ttoken@example.com/x is wrong`, "s3cr3t", "is wrong"},
		{`postgres://db01/x?user=jane&password=hunt,er2&sslmode=require is wrong`, "er2", "sslmode=require is wrong"},
		{`Get "https://example.com/x?api_key=s3cr3t&sig=s3cr3t&code=s3cr3t": EOF`, "s3cr3t", ": EOF"},
		{`Authorization: Basic dXNlcjpodW50ZXIy is refused`, "dXNl", "is refused"},
		{`cannot parse "host=db password='two words' user=x"`, "words", "cannot parse"},
		{`password="two words" is wrong`, "words", "is wrong"},
		{`password=h,}&'unter2 is wrong`, "unter2", "is wrong"},
		{`password=abc is wrong`, "abc", "is wrong"},
		{`PGPASSWORD=hun\ ter2 is wrong`, "ter2", "is wrong"},
		{`pwd=hunter2;Uid=x and passphrase: hunter2 is wrong`, "hunter2", "is wrong"},
		{`jane:hunter2@tcp(db01:3306)/x is wrong`, "hunter2", "is wrong"},
		{`lookup bücher.example.com: no such host`, "ü", "no such host"},
		{`lookup db01 on 10.0.0.2:53: no such host`, "db01", ":53: no such host"},
		{`Get "https://db01:8440/": EOF`, "db01", ":8440/"},
		{"failed to connect to `user=jane database=acme`: EOF", "acme", "user=["},
		{`arn:aws:redshift:us-east-1:1:dbuser:warehouse/alice`, "alice", ":dbuser:warehouse/"},
		{`candidate authority certificate "Acme Root CA")`, "Acme", "authority certificate"},
		{`open \\fileserver\Jane\x.yaml: denied`, "Jane", "x.yaml: denied"},
		{`file:///home/jane/x.key and ~/jane/x.key`, "jane", "x.key"},
		{`open /home/Jane Doe/acme stuff/daypass.yaml: permission denied`, "Doe", "open …/daypass.yaml: permission denied"},
		{`open /srv/Acme and Sons Ltd/daypass.yaml: denied`, "Acme", "…/daypass.yaml: denied"},
		{`open C:\Users\Jane Doe\daypass.yaml: denied`, "Doe", "open …/daypass.yaml: denied"},
		{`reads /etc/daypass and writes to /srv/jane/x`, "jane", "…/daypass and writes to …/x"},
		{`the certificate of CN=Jane Doe,OU=Sales\, North,O=Acme Ltd,C=DE: it has expired`, "Jane", "the certificate of CN=[name],OU=[name],O=[name],C=[name]: it has expired"},
		{`issuer /C=DE/O=Acme Ltd/CN=Acme Root is unknown`, "Acme", "issuer "},
		{`subject CN = acme-gateway, O = Acme Ltd; serial 7`, "cme", "serial 7"},
		{`logs_210987654321_east and acct210987654321`, "210987654321", "logs_[account]_east and acct[account]"},
		{`the certificate is for DB.EXAMPLE.COM.`, "EXAMPLE", "the certificate is for "},
	} {
		m := &Mask{}
		m.Host("warehouse-primary")
		m.Cluster("acme-billing")
		m.Cluster("keys")
		m.Secret("planted-secret-1")
		if got := m.Text(test.text); strings.Contains(got, test.not) || !strings.Contains(got, test.keep) {
			t.Errorf("Text(%q) = %q, want %q and not %q", test.text, got, test.keep, test.not)
		}
	}
}

// TestMaskKeeps: the report keeps what a reader needs and what reveals nothing.
func TestMaskKeeps(t *testing.T) {
	for _, text := range []string{
		"daypass.yaml:12: gateway.listen: is \"x\", want HOST:PORT",
		"the API at http://127.0.0.1:8440 answers and is ready",
		"localhost:5439 cannot be reached: connection refused",
		"server.crt of the gateway expires on 2027-01-02T15:04:05Z",
		"examplecluster: logons do not work, or not all: 2 errors, 1 warnings",
		"run daypass cluster check examplecluster",
		"the certificate of registry.etcd is valid until 2030-01-01",
		"[::1]:8440 answers",
		"keyring.json can be read by others (mode 0644): run chmod go-rwx",
		"20261129074512 is no account, and 1234567890 is none",
		"GOGC=100 and CC=1",
	} {
		if got := new(Mask).Text(text); got != text {
			t.Errorf("Text(%q) = %q", text, got)
		}
	}
}

// TestMaskTellsHostsApart: two lines about one host use the same alias.
func TestMaskTellsHostsApart(t *testing.T) {
	m := &Mask{}
	first, second, third := m.Text("a.example.com"), m.Text("b.example.com"), m.Text("A.example.com")
	if first == second || first != third {
		t.Errorf("three hosts are %q, %q and %q, want the first and the third the same", first, second, third)
	}
	m.ShowNames = true
	if got := m.Text("a.example.com with password=hunter2"); !strings.Contains(got, "a.example.com") || strings.Contains(got, "hunter2") {
		t.Errorf("with ShowNames: %q", got)
	}
}

// FuzzMask: a planted secret, account number and address are removed from any context, and
// masking a masked text changes nothing.
func FuzzMask(f *testing.F) {
	f.Add("a ", " b")
	f.Add("password=", "&x")
	f.Add("://u:", "@host/")
	f.Add("/etc/", ".crt")
	f.Add("[redacted]", "[host 1]")
	f.Add("certificate is valid for ", ", not b")
	f.Add("user \"", "\"")
	f.Fuzz(func(t *testing.T, before, after string) {
		const secret, account, host = "pl4nted-s3cret", "210987654321", "198.51.100.77"
		m := &Mask{}
		m.Secret(secret)
		m.Host("planted-host")
		got := m.Text(before + secret + after + " " + account + " " + host + " planted-host ")
		for _, planted := range []string{secret, " " + account + " ", " " + host + " ", " planted-host "} {
			if strings.Contains(got, planted) && !strings.Contains(before+after, planted) {
				t.Errorf("Text(%q, %q) = %q, which has %q", before, after, got, planted)
			}
		}
	})
}
