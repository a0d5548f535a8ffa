//go:build !linux

package sitetest

import "syscall"

func attributes() *syscall.SysProcAttr { return nil }
