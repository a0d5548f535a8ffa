//go:build unix

package main

import "os"

// openTerminal opens the terminal of this process, whatever its standard input and
// output are. The caller closes in.
func openTerminal() (in, out *os.File, err error) {
	file, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	return file, file, err
}
