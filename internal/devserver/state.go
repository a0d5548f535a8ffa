package devserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/directory"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/server"
)

// dirs are the directories and files of one `daypass dev`:
//
//	postgres      PostgreSQL's data, log and superuser password
//	server        the data directory of daypass serve
//	daypass.yaml  the configuration of the last run
//	access-key, operator-access-key
//	              the IAM users' access keys, as JSON
//	aws-config, aws-credentials
//	              profiles of both, for AWS clients
//	lock          held by the process that uses the directory
//
// Without --data they are temporary, and close removes them.
type dirs struct {
	root     string
	postgres string
	server   string
	kept     bool
	lock     *os.File
}

func makeDirs(data string) (_ dirs, err error) {
	d := dirs{kept: data != ""}
	if d.kept {
		if d.root, err = filepath.Abs(data); err != nil {
			return d, err
		}
		// Not 0700: when this process is root, PostgreSQL runs as another account and
		// has to reach its own directory. Secrets have modes of their own.
		if err := os.MkdirAll(d.root, 0o711); err != nil {
			return d, fmt.Errorf("making the data directory: %w", err)
		}
	} else {
		sweepDirs()
		if d.root, err = os.MkdirTemp("", prefix); err != nil {
			return d, err
		}
		if err := os.Chmod(d.root, 0o711); err != nil {
			return d, errors.Join(err, os.RemoveAll(d.root))
		}
	}
	d.postgres = filepath.Join(d.root, "postgres")
	d.server = filepath.Join(d.root, "server")
	if d.lock, err = os.OpenFile(filepath.Join(d.root, "lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return d, fmt.Errorf("opening the data directory: %w", err)
	}
	if err := server.Lock(d.lock); err != nil {
		d.lock.Close()
		if errors.Is(err, server.ErrLocked) {
			return d, fmt.Errorf("%s is in use by another daypass dev", d.root)
		}
		return d, fmt.Errorf("locking the data directory: %w", err)
	}
	return d, nil
}

// prefix begins the names of the temporary directories.
const prefix = "daypass-dev-"

// sweepDirs removes the temporary directories of killed runs, whose locks are free. Recent
// directories stay, because a new run may not have locked its own yet.
func sweepDirs() {
	found, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	for _, dir := range found {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
		if err != nil {
			continue // it belongs to another user
		}
		if server.Lock(lock) == nil {
			os.RemoveAll(dir)
		}
		lock.Close()
	}
}

func (d *dirs) close() error {
	d.lock.Close()
	if d.kept {
		return nil
	}
	return os.RemoveAll(d.root)
}

// accessKey reads the access key of an earlier run from a file, or makes one.
func (d *dirs) accessKey(name string) (directory.AccessKey, error) {
	// The file has the names in the response of `aws iam create-access-key`.
	var file struct{ AccessKeyId, SecretAccessKey string }
	path := filepath.Join(d.root, name)
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &file); err != nil || file.AccessKeyId == "" || file.SecretAccessKey == "" {
			return directory.AccessKey{}, fmt.Errorf("%s holds no access key; remove it to have a new one made", path)
		}
	case errors.Is(err, os.ErrNotExist):
		key := directory.NewAccessKey()
		file.AccessKeyId, file.SecretAccessKey = key.ID, key.Secret.Reveal()
		data, err := json.Marshal(file)
		if err != nil {
			return directory.AccessKey{}, err
		}
		if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
			return directory.AccessKey{}, err
		}
	default:
		return directory.AccessKey{}, err
	}
	return directory.AccessKey{ID: file.AccessKeyId, Secret: keyring.Secret(file.SecretAccessKey)}, nil
}

// writeProfiles writes an AWS configuration with a profile for each of the IAM users.
func (d *dirs) writeProfiles(endpoint string, keys map[string]directory.AccessKey) (config, credentials string, err error) {
	config, credentials = filepath.Join(d.root, "aws-config"), filepath.Join(d.root, "aws-credentials")
	var settings, secrets strings.Builder
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		fmt.Fprintf(&settings, "[profile %s]\nendpoint_url = %s\nregion = %s\n\n", name, endpoint, exampleRegion)
		fmt.Fprintf(&secrets, "[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\n\n", name, keys[name].ID, keys[name].Secret.Reveal())
	}
	if err := os.WriteFile(config, []byte(settings.String()), 0o600); err != nil {
		return "", "", fmt.Errorf("writing the AWS profiles: %w", err)
	}
	if err := os.WriteFile(credentials, []byte(secrets.String()), 0o600); err != nil {
		return "", "", fmt.Errorf("writing the AWS profiles: %w", err)
	}
	return config, credentials, nil
}
