package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/daypass/daypass/internal/quote"
)

// mfaCode asks for the code of an MFA device, in the words of the AWS CLI.
func (env environment) mfaCode(ctx context.Context, serial string) (string, error) {
	in, out, err := openTerminal()
	if err != nil {
		return "", fmt.Errorf("the profile wants a code of the MFA device %s (mfa_serial), and there is no terminal to ask for it: "+
			"get temporary keys with `aws sts get-session-token` or `aws sts assume-role` first", serial)
	}
	defer in.Close()
	return askHidden(ctx, in, out, "Enter MFA code for "+serial+": ")
}

// askHidden reads a line without showing it. Ctrl-C ends it and restores the terminal.
func askHidden(ctx context.Context, in, out *os.File, prompt string) (string, error) {
	before, err := term.GetState(int(in.Fd()))
	if err != nil {
		return "", fmt.Errorf("the terminal: %w", err)
	}
	if _, err := fmt.Fprint(out, quote.Terminal(prompt)); err != nil {
		return "", fmt.Errorf("the terminal: %w", err)
	}
	// The terminal's own editing of lines would cut long ones off, after 1024 bytes on macOS and 4096
	// on Linux. The code of a sign-in has about 1000, more with long names.
	type answer struct {
		line []byte
		err  error
	}
	read := make(chan answer, 1)
	go func() {
		line, err := readHidden(in)
		read <- answer{line, err}
	}()
	select {
	case got := <-read:
		fmt.Fprintln(out)
		line := strings.TrimSpace(string(got.line))
		if got.err != nil || line == "" {
			return "", errors.New("no code was entered")
		}
		return line, nil
	case <-ctx.Done():
		_ = term.Restore(int(in.Fd()), before)
		fmt.Fprintln(out)
		return "", context.Cause(ctx)
	}
}
