//go:build unix

package devserver

import "syscall"

// errAddressInUse is the error of listening on a taken port.
const errAddressInUse = syscall.EADDRINUSE
