//go:build unix

package devserver

import "syscall"

// errAddressInUse is what listening on a taken port fails with.
const errAddressInUse = syscall.EADDRINUSE
