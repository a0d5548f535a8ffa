//go:build !linux

package pgtest

// Root returns the directory for the files of test servers: empty for the system's temporary
// directory.
func Root() string { return "" }
