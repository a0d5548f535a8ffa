//go:build !linux

package pgtest

// Root is where servers of tests have their files: where the system has temporary ones.
func Root() string { return "" }
