package server

import (
	"testing"

	"github.com/daypass/daypass/internal/config"
)

// testdata is the site that the scripts of the command have too.
const testdata = "../../cmd/daypass/testdata/"

// principals are the access keys that the configuration of testdata has.
var principals = map[string][2]string{
	"ana":   {"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"},
	"bob":   {"AKIAI44QH8DHBEXAMPLE", "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY"},
	"admin": {"AKIAJADMINADMINADMIN", "adminadminadminadminadminadminadmin+/adm"},
}

const smallConfig = `account: "123456789012"
region: us-east-1
data: ./data
api: {listen: "127.0.0.1:0"}
gateway: {listen: "127.0.0.1:0"}
`

// parse reads a configuration that finds nothing in the environment.
func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("f.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return c
}
