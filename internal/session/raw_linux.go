package session

import (
	"io"
	"syscall"
	"unsafe"
)

// rawRelay reports that rawRead and rawWrite work on this system.
const rawRelay = true

// rawRead reads from a non-blocking socket. It does not notify Go's scheduler of the system
// call, which would cost as much as the call itself. n is 0 with a nil error at the end of the
// stream.
func rawRead(fd int, b []byte) (n int, err error) {
	for {
		r, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
			return int(r), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// rawWrite writes what fits into the socket; n is less than len(b), with a nil
// error, when it is full.
func rawWrite(fd int, b []byte) (n int, err error) {
	for n < len(b) {
		r, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[n])), uintptr(len(b)-n))
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			return n, nil
		case errno != 0:
			return n, errno
		case r == 0:
			return n, io.ErrUnexpectedEOF
		default:
			n += int(r)
		}
	}
	return n, nil
}
