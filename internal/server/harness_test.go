package server

import (
	"strings"
	"sync"
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

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *lockedBuffer) Len() int { return len(b.String()) }
