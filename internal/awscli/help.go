package awscli

import (
	"fmt"
	"io"
	"strings"
)

// operationText is what help says about an operation.
type operationText struct {
	summary     string
	description string
	// parameters has a description for the name of each parameter. The YAML skeleton
	// shows its first sentence.
	parameters map[string]string
	examples   string // with PROGRAM for the name of the program
	output     [][2]string
}

func (c *command) printHelp(text string) error {
	_, err := io.WriteString(c.env.Stdout, text)
	return err
}

const nameRules = `1 to 64 letters, digits, _ + . @ or -, the first a letter; no colon, no slash, no reserved word of Amazon Redshift.`

const clusterParameter = `The unique identifier of the cluster that contains the database for which you are requesting credentials. Upper and lower case differ.`

const durationParameter = `The number of seconds until the returned temporary password expires. From 900, which is the default, to 3600. Sessions that are open then stay open.`

const domainParameter = `The custom domain name for the cluster credentials. It stands in the place of the cluster identifier.`

const databaseParameter = `The name of a database that DbUser is authorized to log on to. Without it the password is good for any database. ` + nameRules

func getClusterCredentialsText() operationText {
	return operationText{
		summary: "a database user name and a password that works for a while",
		description: `Returns a database user name and a temporary password to log on with. The name
has the prefix IAM: when the user must exist already, and IAMA: with
--auto-create, when it is made at the first logon if it is missing. A missing
user is noticed at the logon, not by this command.

The caller's policies must allow redshift:GetClusterCredentials for the
database user, and for the database when one is named; with --auto-create also
redshift:CreateClusterUser, and redshift:JoinGroup for each group.

The password goes to a PostgreSQL client like any other, over TLS. To get one
and start psql with it in one step, see: PROGRAM connect --help`,
		parameters: map[string]string{
			"DbUser":            "The name of a database user. " + nameRules + " Not PUBLIC.",
			"DbName":            databaseParameter,
			"ClusterIdentifier": clusterParameter,
			"DurationSeconds":   durationParameter,
			"AutoCreate":        "Create a database user with the name specified for the user named in DbUser if one does not exist. --no-auto-create says that it must exist. Of the two, the last one counts.",
			"DbGroups":          "A list of the names of existing database groups that the user named in DbUser will join for the current session, in addition to any group memberships for an existing user. Lower case. Separate names by spaces, or give a JSON list: a,b is one name. The last --db-groups counts; without a value it is the empty list.",
			"CustomDomainName":  domainParameter,
		},
		examples: `A password for alice, for any database:

    PROGRAM redshift get-cluster-credentials \
        --cluster-identifier examplecluster --db-user alice

For one database, for half an hour, with the rights of two groups, and made if
she does not exist:

    PROGRAM redshift get-cluster-credentials \
        --cluster-identifier examplecluster --db-user alice --db-name dev \
        --duration-seconds 1800 --auto-create \
        --db-groups analysts finance

Straight into psql's environment:

    export PGUSER=IAM:alice
    PGPASSWORD=$(PROGRAM redshift get-cluster-credentials \
        --cluster-identifier examplecluster --db-user alice \
        --query DbPassword --output text) && export PGPASSWORD

From a form:

    PROGRAM redshift get-cluster-credentials \
        --generate-cli-skeleton > ask.json
    PROGRAM redshift get-cluster-credentials \
        --cli-input-json file://ask.json`,
		output: [][2]string{
			{"DbUser", "The name to log on with."},
			{"DbPassword", "The password."},
			{"Expiration", "When the password stops working."},
		},
	}
}

func getClusterCredentialsWithIAMText() operationText {
	return operationText{
		summary: "the same for the database user of the caller's own identity",
		description: `Returns a user name and a temporary password for the database user that belongs
to the caller: IAM:NAME for an IAM user, IAMR:NAME for an IAM role. It is made
at the first logon.

The caller's policies must allow redshift:GetClusterCredentialsWithIAM for the
database.`,
		parameters: map[string]string{
			"DbName":            databaseParameter,
			"ClusterIdentifier": clusterParameter,
			"DurationSeconds":   durationParameter,
			"CustomDomainName":  domainParameter,
		},
		examples: `    PROGRAM redshift get-cluster-credentials-with-iam \
        --cluster-identifier examplecluster --db-name dev`,
		output: [][2]string{
			{"DbUser", "The name to log on with."},
			{"DbPassword", "The password."},
			{"Expiration", "When the password stops working."},
			{"NextRefreshTime", "Reserved for future use."},
		},
	}
}

func describeClustersText() operationText {
	return operationText{
		summary: "where the clusters are, and what they are called",
		description: `Returns the clusters with their endpoints. The answer is a list; it is asked for
page by page until it is complete, unless --no-paginate is given. With
--output text, --query is applied to each page.`,
		parameters: map[string]string{
			"ClusterIdentifier": "The unique identifier of a cluster whose properties you are requesting. Without it all clusters are returned.",
			"MaxRecords":        "The maximum number of response records to return in each call. Better: --page-size.",
			"Marker":            "An optional parameter that specifies the starting point to return a set of response records. Better: --starting-token.",
			"TagKeys":           "A tag key or keys for which you want to return all matching clusters that are associated with the specified key or keys.",
			"TagValues":         "A tag value or values for which you want to return all matching clusters that are associated with the specified tag value or values.",
		},
		examples: `Where to log on:

    PROGRAM redshift describe-clusters \
        --cluster-identifier examplecluster \
        --query 'Clusters[0].Endpoint.[Address, Port]' --output text

All clusters, in brief:

    PROGRAM redshift describe-clusters --output table --query \
        'Clusters[].{id: ClusterIdentifier, host: Endpoint.Address}'`,
		output: [][2]string{
			{"Clusters", "One object for each cluster, with ClusterIdentifier, DBName, Endpoint.Address and Endpoint.Port."},
			{"Marker", "Where the next page begins, with --no-paginate."},
		},
	}
}

type page struct {
	b       strings.Builder
	program string
}

func (p *page) heading(text string) { fmt.Fprintf(&p.b, "%s\n", text) }

func (p *page) text(indent int, text string) {
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "PROGRAM", p.program), "\n") {
		if line != "" {
			line = repeat(" ", indent) + line
		}
		p.b.WriteString(line + "\n")
	}
	p.b.WriteByte('\n')
}

// paragraphs writes a text with new line breaks. Indented parts stay as they are.
func (p *page) paragraphs(text string) {
	for part := range strings.SplitSeq(text, "\n\n") {
		if strings.HasPrefix(part, " ") {
			p.text(5, part)
		} else {
			p.text(7, wrap(strings.ReplaceAll(part, "PROGRAM", p.program), helpColumns-7))
		}
	}
}

// wrap breaks a text into lines.
func wrap(text string, columns int) string {
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		if column > 0 && column+1+len(word) > columns {
			b.WriteByte('\n')
			column = 0
		} else if column > 0 {
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}

const helpColumns = 78

func (p *page) options(options []option) {
	for _, o := range options {
		if o.hidden || strings.HasPrefix(o.name, "no-") && p.isNegation(o.name, options) {
			continue
		}
		p.text(7, o.usage())
		p.text(11, wrap(o.doc, helpColumns-11))
	}
}

func (p *page) isNegation(name string, options []option) bool {
	for _, o := range options {
		if "no-"+o.name == name {
			return true
		}
	}
	return false
}

// usage returns the option as it is written in the help.
func (o *option) usage() string {
	switch {
	case o.nargs == noValue && o.dest == o.name:
		return fmt.Sprintf("--%s | --no-%s (boolean)", o.name, o.name)
	case o.nargs == noValue:
		return fmt.Sprintf("--%s (boolean)", o.name)
	case o.nargs == anyValues:
		return fmt.Sprintf("--%s (list)", o.name)
	case o.integer || o.name == "duration-seconds" || strings.HasSuffix(o.name, "-timeout"):
		return fmt.Sprintf("--%s (integer)", o.name)
	}
	return fmt.Sprintf("--%s (string)", o.name)
}

// synopsis returns an option in the list of all.
func (o *option) synopsis() string {
	text := "--" + o.name
	switch {
	case o.nargs == noValue && o.dest == o.name:
		text += " | --no-" + o.name
	case o.nargs == anyValues:
		text += " <value> ..."
	case o.nargs == optionalValue:
		text += " [" + strings.Join(o.choices, "|") + "]"
	case o.nargs == oneValue:
		text += " <value>"
	}
	if o.required {
		return text
	}
	return "[" + text + "]"
}

func operationHelp(program string, op *operation) string {
	p := page{program: program}
	p.heading("NAME")
	p.paragraphs(op.cliName + " - " + op.help.summary)
	p.heading("DESCRIPTION")
	p.paragraphs(op.help.description)
	p.heading("SYNOPSIS")
	options := op.options()
	lines := []string{program + " redshift " + op.cliName}
	for _, o := range options {
		if !o.hidden && !p.isNegation(o.name, options) {
			lines = append(lines, "    "+o.synopsis())
		}
	}
	p.text(7, strings.Join(lines, "\n"))
	p.heading("OPTIONS")
	p.options(options)
	p.paragraphs("An option may be shortened while that is not ambiguous: --cluster-id. A value that begins with file:// is read from that file.")
	p.heading("GLOBAL OPTIONS")
	p.options(globalOptions)
	p.heading("EXAMPLES")
	p.paragraphs(op.help.examples)
	p.heading("OUTPUT")
	for _, member := range op.help.output {
		p.text(7, member[0]+"\n    "+strings.ReplaceAll(wrap(member[1], helpColumns-11), "\n", "\n    "))
	}
	p.exitCodes()
	return p.b.String()
}

func (p *page) exitCodes() {
	p.heading("EXIT CODES")
	p.text(7, `0    the answer was printed
252  the command line or a parameter is wrong
253  configuration or credentials are missing or wrong
254  the service answered with an error
255  anything else, such as no connection
130  interrupted`)
}

func serviceHelp(program string) string {
	p := page{program: program}
	p.heading("NAME")
	p.text(7, "redshift - call the Amazon Redshift API of a daypass server, or Amazon's")
	p.heading("DESCRIPTION")
	p.paragraphs(`These commands are used like those of the AWS CLI with the same names, and print
the same. Where the API is, which region it serves and whose access key signs
come from options, from the environment, or from the files in ~/.aws:

    export AWS_ENDPOINT_URL=https://db.example.com:8440
    export AWS_REGION=us-east-1
    export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...`)
	p.heading("SYNOPSIS")
	p.text(7, "PROGRAM redshift [options] <subcommand> [parameters]")
	p.heading("SUBCOMMANDS")
	for _, op := range operations() {
		p.text(7, op.cliName+"\n    "+op.help.summary)
	}
	p.text(7, "Help on one of them: PROGRAM redshift <subcommand> help")
	p.heading("GLOBAL OPTIONS")
	p.options(globalOptions)
	p.exitCodes()
	return p.b.String()
}
