package awscli

import (
	"os"

	"golang.org/x/sys/windows"
)

// TerminalWidth returns the number of columns of the terminal that a file is,
// or 0 when it is none.
func TerminalWidth(f *os.File) int {
	var info windows.ConsoleScreenBufferInfo
	if err := windows.GetConsoleScreenBufferInfo(windows.Handle(f.Fd()), &info); err != nil {
		return 0
	}
	return int(info.Size.X)
}
