package registrytest_test

import (
	"testing"

	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/registrytest"
)

func TestMemory(t *testing.T) {
	registrytest.Conformance(t, func(*testing.T) registry.Store { return &registrytest.Memory{} }, nil)
}
