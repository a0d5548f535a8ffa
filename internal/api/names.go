package api

import (
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/awsquery"
)

// maxName is the maximum length of the names of database users, databases and groups in
// the API. PostgreSQL's is 63 bytes: a name of 64 is accepted here, as the API
// Reference says, and fails at logon.
const maxName = 64

// nameRule is a rule in addition to those for all names.
type nameRule uint8

const (
	// lowerCaseOnly is for DbGroups. DbUser and DbName keep their case.
	lowerCaseOnly nameRule = 1 << iota
	// notPublic is for DbUser: PUBLIC means everyone in a GRANT.
	notPublic
)

// checkName checks a name against the constraints of the API Reference
// ("GetClusterCredentials", Request Parameters). The error names the parameter and the
// first rule that it breaks, never the value.
func checkName(parameter, value string, rule nameRule) error {
	if value == "" {
		return blank(parameter)
	}
	if utf8.RuneCountInString(value) > maxName {
		return awsquery.Invalid(parameter, "must be 1 to "+strconv.Itoa(maxName)+" characters long")
	}
	for i := 0; i < len(value); i++ {
		if c := value[i]; c == ':' || c == '/' {
			return awsquery.Invalid(parameter, "must not contain a colon (:) or slash (/)")
		}
	}
	if !isLetter(value[0]) {
		return awsquery.Invalid(parameter, "must begin with an ASCII letter")
	}
	for i := 0; i < len(value); i++ {
		c := value[i]
		upper := 'A' <= c && c <= 'Z'
		if !isNameCharacter(c) || upper && rule&lowerCaseOnly != 0 {
			letters := "ASCII letters"
			if rule&lowerCaseOnly != 0 {
				letters = "lowercase ASCII letters"
			}
			return awsquery.Invalid(parameter, "must contain only "+letters+
				", numbers, underscore, plus sign, period (dot), at symbol (@), or hyphen")
		}
	}
	if rule&notPublic != 0 && strings.EqualFold(value, "PUBLIC") {
		return awsquery.Invalid(parameter, "must not be PUBLIC")
	}
	if isReserved(value) {
		return awsquery.Invalid(parameter, "must not be a reserved word")
	}
	return nil
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isNameCharacter(c byte) bool {
	switch c {
	case '_', '+', '.', '@', '-':
		return true
	}
	return isLetter(c) || '0' <= c && c <= '9'
}

// isReserved reports whether a valid name is one of Redshift's reserved words,
// whatever its case.
func isReserved(name string) bool {
	var upper [maxName]byte
	for i := 0; i < len(name); i++ {
		c := name[i]
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		upper[i] = c
	}
	return isReservedWord(string(upper[:len(name)]))
}

// isReservedWord reports whether a word is in the Amazon Redshift Database Developer
// Guide, "Reserved words". A note on that page says that START and CONNECT are not
// reserved, but its list has them, so they are refused (docs/divergences.md).
func isReservedWord(word string) bool {
	switch word {
	case "AES128", "AES256", "ALL", "ALLOWOVERWRITE", "ANALYSE", "ANALYZE", "AND", "ANY", "ARRAY", "AS", "ASC",
		"AUTHORIZATION", "AZ64", "BACKUP", "BETWEEN", "BINARY", "BLANKSASNULL", "BOTH", "BYTEDICT", "BZIP2",
		"CASE", "CAST", "CHECK", "COLLATE", "COLUMN", "CONNECT", "CONSTRAINT", "CREATE", "CREDENTIALS", "CROSS",
		"CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP", "CURRENT_USER", "CURRENT_USER_ID", "DEFAULT",
		"DEFERRABLE", "DEFLATE", "DEFRAG", "DELTA", "DELTA32K", "DESC", "DISABLE", "DISTINCT", "DO", "ELSE",
		"EMPTYASNULL", "ENABLE", "ENCODE", "ENCRYPT", "ENCRYPTION", "END", "EXCEPT", "EXPLICIT", "FALSE", "FOR",
		"FOREIGN", "FREEZE", "FROM", "FULL", "GLOBALDICT256", "GLOBALDICT64K", "GRANT", "GROUP", "GZIP", "HAVING",
		"IDENTITY", "IGNORE", "ILIKE", "IN", "INITIALLY", "INNER", "INTERSECT", "INTERVAL", "INTO", "IS", "ISNULL",
		"JOIN", "LANGUAGE", "LEADING", "LEFT", "LIKE", "LIMIT", "LOCALTIME", "LOCALTIMESTAMP", "LUN", "LUNS",
		"LZO", "LZOP", "MINUS", "MOSTLY16", "MOSTLY32", "MOSTLY8", "NATURAL", "NEW", "NOT", "NOTNULL", "NULL",
		"NULLS", "OFF", "OFFLINE", "OFFSET", "OID", "OLD", "ON", "ONLY", "OPEN", "OR", "ORDER", "OUTER",
		"OVERLAPS", "PARALLEL", "PARTITION", "PERCENT", "PERMISSIONS", "PIVOT", "PLACING", "PRIMARY", "RAW",
		"READRATIO", "RECOVER", "REFERENCES", "REJECTLOG", "RESORT", "RESPECT", "RESTORE", "RIGHT", "SELECT",
		"SESSION_USER", "SIMILAR", "SNAPSHOT", "SOME", "START", "SYSDATE", "SYSTEM", "TABLE", "TAG", "TDES",
		"TEXT255", "TEXT32K", "THEN", "TIMESTAMP", "TO", "TOP", "TRAILING", "TRUE", "TRUNCATECOLUMNS", "UNION",
		"UNIQUE", "UNNEST", "UNPIVOT", "USER", "USING", "VERBOSE", "WALLET", "WHEN", "WHERE", "WITH", "WITHOUT":
		return true
	}
	return false
}

// blank returns the error for a parameter without a value, as the Query services word
// it.
func blank(parameter string) error {
	return &awsquery.Error{Code: "InvalidParameterValue", Status: http.StatusBadRequest,
		Message: "The parameter " + parameter + " must be provided and must not be blank."}
}
