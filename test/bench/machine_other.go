//go:build unix && !linux

package main

// avoidHugePages does nothing: only Linux is asked for small pages.
func avoidHugePages([]byte) error { return nil }
