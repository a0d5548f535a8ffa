package main

import "golang.org/x/sys/unix"

// avoidHugePages makes the system map each page of the memory by itself, with one fault per page.
func avoidHugePages(memory []byte) error { return unix.Madvise(memory, unix.MADV_NOHUGEPAGE) }
