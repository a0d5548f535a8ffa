package main

import "os"

// openTerminal opens the console of this process, whatever its standard input is. The
// caller closes in.
func openTerminal() (in, out *os.File, err error) {
	in, err = os.OpenFile("CONIN$", os.O_RDWR, 0)
	return in, os.Stderr, err
}
