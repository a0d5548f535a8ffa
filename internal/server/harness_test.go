package server

import (
	"testing"

	"github.com/daypass/daypass/internal/config"
)

const smallConfig = `account: "123456789012"
region: us-east-1
data: ./data
api: {listen: "127.0.0.1:0"}
gateway: {listen: "127.0.0.1:0"}
`

// parse reads a configuration with an empty environment.
func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("f.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return c
}
