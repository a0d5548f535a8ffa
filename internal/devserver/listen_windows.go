package devserver

import "syscall"

// errAddressInUse is what listening on a taken port fails with: WSAEADDRINUSE,
// which syscall.EADDRINUSE is not.
const errAddressInUse = syscall.Errno(10048)
