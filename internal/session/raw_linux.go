package session

import (
	"io"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
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

// rawQueued returns how many bytes of a socket the peer has not taken yet; -1 if that is unknown.
func rawQueued(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCOUTQ)
	if err != nil {
		return -1
	}
	return n
}

// rawHungUp reports whether the peer of a socket has closed it, and whether the socket is closed in
// both directions or broken.
func rawHungUp(fd int) (closed, broken bool) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	if n, err := unix.Poll(fds, 0); err != nil || n == 0 {
		return false, false
	}
	return fds[0].Revents&unix.POLLRDHUP != 0, fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
}

// rawUserTimeout returns TCP_USER_TIMEOUT, in milliseconds, of a socket that has it.
func rawUserTimeout(fd int) (milliseconds int, ok bool) {
	milliseconds, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	return milliseconds, err == nil
}

// rawSetUserTimeout sets TCP_USER_TIMEOUT. An error does not matter.
func rawSetUserTimeout(fd, milliseconds int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, milliseconds)
}

// rawUnanswered returns how long ago a TCP socket received the last acknowledgement; 0 if that is
// unknown.
func rawUnanswered(fd int) time.Duration {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	return time.Duration(info.Last_ack_recv) * time.Millisecond
}
