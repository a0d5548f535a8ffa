//go:build unix

package main

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/term"
)

// openTerminal opens the terminal of this process, whatever its standard input and
// output are. The caller closes in.
func openTerminal() (in, out *os.File, err error) {
	file, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	return file, file, err
}

// readHidden reads a line from a terminal and does not show it. Ctrl-C sends SIGINT, as always.
func readHidden(in *os.File) ([]byte, error) {
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, err
	}
	line, err := editLine(in, func() { _ = syscall.Kill(0, syscall.SIGINT) }) // 0: the process group, as the terminal does
	return line, errors.Join(err, term.Restore(int(in.Fd()), before))
}

// longestLine is far above what a person pastes.
const longestLine = 64 << 10

// editLine does what a terminal does that is not in raw mode, without its limit on the length of a line.
// It reads byte by byte, because what follows the line belongs to others.
func editLine(in io.Reader, interrupt func()) ([]byte, error) {
	const ctrlC, ctrlD, backspace, ctrlU, del = 3, 4, 8, 21, 127
	var line []byte
	for one := make([]byte, 1); ; {
		if _, err := io.ReadFull(in, one); err != nil {
			return nil, err
		}
		switch c := one[0]; {
		case c == '\r' || c == '\n' || c == ctrlD:
			return line, nil
		case c == ctrlC:
			interrupt()
		case c == ctrlU:
			line = line[:0]
		case c == backspace || c == del:
			line = line[:max(len(line)-1, 0)]
		case len(line) == longestLine:
			return nil, errors.New("the line is too long")
		default:
			line = append(line, c)
		}
	}
}
