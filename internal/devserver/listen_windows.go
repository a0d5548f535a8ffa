package devserver

import "syscall"

// errAddressInUse is the error of listening on a taken port, WSAEADDRINUSE, which
// differs from syscall.EADDRINUSE.
const errAddressInUse = syscall.Errno(10048)
