// Package filemode has the rule for the modes of the files that the server writes and
// reads, and reads those that it reads more than once.
//
// Only the server's account may read and write a private file (a key, a secret, the
// audit log). Anyone may read a public one (a certificate, a policy), and only the
// server's account may write it. One exception: if root owns a file and the server,
// which is not root, is in the file's group, the group may have the access that the
// server needs. That is how root gives a file to one account, and how a Kubernetes
// volume with fsGroup looks. PostgreSQL has the same rule for its keys. A file that root
// owns, for root's own group, and with mode 0440, is private too: that is how systemd 254
// and later hand over a credential. Its group bits are the mask of an ACL, which has one entry, for
// the account of the service.
//
// The rule applies to root too. Systems without Unix modes have no rule.
package filemode

import (
	"fmt"
	"io/fs"
)

// Kind is private or public.
type Kind int

const (
	Private Kind = iota // not theirs to read
	Public              // theirs to read
)

// Fault is why a file is open to more accounts than it should be.
type Fault struct {
	Path string
	Mode fs.FileMode
	Kind Kind
	// Mendable is true if this process's account owns the file and only the group has
	// too much access, as fsGroup sets it on each file whenever a volume is mounted.
	Mendable bool
	excess   fs.FileMode
	who      string
}

// Error names the accounts that have too much access, and how to mend that.
func (f *Fault) Error() string {
	done, mend := "read", "go-rwx"
	if f.Kind == Public {
		mend = "go-w"
	}
	if f.excess&0o022 != 0 {
		done = "changed"
	}
	return fmt.Sprintf("%s can be %s by %s (mode %04o): run chmod %s %s", f.Path, done, f.who, f.Mode.Perm(), mend, f.Path)
}

// Allowed returns the mode bits that a kind leaves to group and others.
func (k Kind) Allowed() fs.FileMode {
	if k == Public {
		return 0o055
	}
	return 0
}

// Check returns a Fault if the file at path is open to more accounts than its kind
// allows, and nil otherwise. For a symbolic link, info may describe the link's target.
func Check(path string, info fs.FileInfo, kind Kind) *Fault {
	excess := info.Mode().Perm() & (0o077 &^ kind.Allowed())
	owner := ownerOf(info)
	if owner == elsewhere || isCredential(info) {
		return nil
	}
	if owner == rootForOurGroup {
		excess &^= 0o070
	}
	if excess == 0 {
		return nil
	}
	f := &Fault{Path: path, Mode: info.Mode(), Kind: kind, excess: excess, who: "others"}
	if excess&0o007 == 0 {
		f.who, f.Mendable = "its group", owner == ourselves
	}
	return f
}

// owner is the kind of account that a file belongs to.
type owner int

const (
	somebody        owner = iota
	ourselves             // the account that runs this process
	rootForOurGroup       // root, for a group of this process, which is not root
	elsewhere             // a system without modes
)
