package main

import (
	"os"

	"golang.org/x/term"
)

// openTerminal opens the console of this process, whatever its standard input is. The
// caller closes in.
func openTerminal() (in, out *os.File, err error) {
	in, err = os.OpenFile("CONIN$", os.O_RDWR, 0)
	return in, os.Stderr, err
}

// readHidden reads a line from the console and does not show it.
func readHidden(in *os.File) ([]byte, error) { return term.ReadPassword(int(in.Fd())) }
