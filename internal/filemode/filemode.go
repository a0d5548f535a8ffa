// Package filemode has the one rule for who may read and write the files that the
// server keeps and those that it is given.
//
// A private file (a key, a secret, the record) is for the server's account: nothing
// for its group and for others. A public one (a certificate, a policy) is for anyone
// to read and for the server's account to write. One exception: where root owns a
// file and the server, which is not root, is in the file's group, the group has what
// it needs. That is how root hands a file to one account, and what a Kubernetes
// volume with fsGroup looks like. PostgreSQL has the same rule for its keys.
//
// The rule is the same for root as for anyone else. Systems without Unix modes have
// no rule.
package filemode

import (
	"fmt"
	"io/fs"
)

// Kind is what a file is to those who are not its owner.
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
	// Mendable reports that the owner is the account that looks, and that only
	// the group has too much, which is what a volume with fsGroup does to each file
	// whenever it is mounted.
	Mendable bool
	excess   fs.FileMode
	who      string
}

// Error says who can do what, and how to mend it.
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

// Allowed is what a kind leaves to those who are not the owner.
func (k Kind) Allowed() fs.FileMode {
	if k == Public {
		return 0o055
	}
	return 0
}

// Check returns why the file at path is open to more accounts than its kind allows,
// nil when it is not. info is the file's own, or that of the file a link leads to.
func Check(path string, info fs.FileInfo, kind Kind) *Fault {
	excess := info.Mode().Perm() & (0o077 &^ kind.Allowed())
	owner := ownerOf(info)
	if owner == elsewhere {
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

// owner is whose a file is, as far as it matters.
type owner int

const (
	somebody        owner = iota
	ourselves             // the account that runs this process
	rootForOurGroup       // root, for a group of this process, which is not root
	elsewhere             // a system without modes
)
