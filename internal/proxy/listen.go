package proxy

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// maxSocketPath returns the longest path of a Unix socket, in bytes: sun_path without its NUL.
func maxSocketPath() int {
	if runtime.GOOS == "linux" {
		return 107
	}
	return 103
}

// Socket returns the path of the Unix socket that libpq looks for.
func (m *Map) Socket() string { return filepath.Join(m.Directory, ".s.PGSQL."+strconv.Itoa(m.Port)) }

// address returns the socket path or the TCP address. Two maps cannot have the same one.
func (m *Map) address() string {
	if m.Directory != "" {
		return m.Socket()
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(m.Port))
}

// listen opens the listeners of a map.
func listen(m *Map) ([]net.Listener, error) {
	if m.Directory != "" {
		l, err := listenUnix(m.Directory, m.Socket())
		return []net.Listener{l}, err
	}
	// Listen on both loopback addresses: a client that connects to "localhost" may use either
	// one, and must not reach another user's port.
	var all []net.Listener
	for _, host := range []string{"127.0.0.1", "::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(m.Port)))
		switch {
		case err == nil:
			all = append(all, l)
			continue
		case host == "::1" && !errors.Is(err, syscall.EADDRINUSE) && !isInUse(err):
			continue // a machine without IPv6
		}
		for _, l := range all {
			l.Close()
		}
		if isInUse(err) {
			return nil, fmt.Errorf("port %d is in use (%s): end the program that has it, or choose another port", m.Port, net.JoinHostPort(host, strconv.Itoa(m.Port)))
		}
		return nil, fmt.Errorf("port %d: %w", m.Port, err)
	}
	return all, nil
}

// isInUse reports whether an address is taken. Windows has its own error number for it.
func isInUse(err error) bool {
	const wsaeaddrinuse = syscall.Errno(10048)
	return errors.Is(err, syscall.EADDRINUSE) || runtime.GOOS == "windows" && errors.Is(err, wsaeaddrinuse)
}

func listenUnix(dir, path string) (net.Listener, error) {
	if !unixSockets {
		return nil, errors.New("a Unix socket: not on this system: leave out the directory, and clients connect to a port")
	}
	if longest := maxSocketPath(); len(path) > longest {
		return nil, fmt.Errorf("the socket %s: its path has %d bytes, and %d is the most on this system: choose a shorter directory", path, len(path), longest)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the directory of the socket: %w", err)
	}
	if err := checkDirectory(dir); err != nil {
		return nil, fmt.Errorf("the directory of the socket: %w", err)
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s: is there, and is not a socket: remove it, or choose another directory", path)
	default:
		// A process that was killed leaves its socket behind.
		conn, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			conn.Close()
			return nil, fmt.Errorf("the socket %s is in use: end the program that has it, or choose another port", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("the socket %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
