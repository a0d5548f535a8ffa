package sts_test

import (
	"encoding/base32"
	"errors"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/sts"
)

// RFC 6238, appendix B, SHA-1: the last six of its eight digits.
func TestTOTPVectors(t *testing.T) {
	seed := keyring.Secret(base32.StdEncoding.EncodeToString([]byte("12345678901234567890")))
	for seconds, code := range map[int64]string{
		59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130",
	} {
		var m sts.MFA
		if err := m.Check(time.Unix(seconds, 0), "device", seed, code); err != nil {
			t.Errorf("at %d: Check(%s) = %v", seconds, code, err)
		}
	}
}

func TestMFA(t *testing.T) {
	const seed = keyring.Secret("GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ") // as apps show it
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	var m sts.MFA
	steps := []struct {
		name string
		now  int64
		code string
		want error
	}{
		{"wrong", 1111111111, "000000", sts.ErrWrongCode},
		{"empty", 1111111111, "", sts.ErrWrongCode},
		{"right", 1111111111, "050471", nil},
		{"right, and used", 1111111112, "050471", sts.ErrWrongCode},
		{"of the step before, after a later one was used", 1111111112, "081804", sts.ErrWrongCode},
		{"long past", 1111111111 + 61, "050471", sts.ErrWrongCode},
	}
	for _, step := range steps {
		if err := m.Check(at(step.now), "device", seed, step.code); !errors.Is(err, step.want) {
			t.Errorf("%s: got %v, want %v", step.name, err, step.want)
		}
	}
	// A clock that is a step behind, and another device.
	if err := m.Check(at(1111111111+29), "other", seed, "050471"); err != nil {
		t.Errorf("one step late: %v", err)
	}
	// Guessing ends with the fifth wrong code, until the next step.
	var guessed sts.MFA
	for range 5 {
		guessed.Check(at(59), "device", seed, "000001")
	}
	if err := guessed.Check(at(59), "device", seed, "287082"); !errors.Is(err, sts.ErrTooMany) {
		t.Errorf("after five wrong codes: got %v, want ErrTooMany", err)
	}
	// Calls whose bodies arrived slowly began in the step before. They give no more tries.
	var slow sts.MFA
	for range 10 {
		slow.Check(at(61), "device", seed, "000001")
		slow.Check(at(59), "device", seed, "000001")
	}
	if err := slow.Check(at(61), "device", seed, "287082"); !errors.Is(err, sts.ErrTooMany) {
		t.Errorf("after wrong codes in two steps by turns: got %v, want ErrTooMany", err)
	}
	if err := guessed.Check(at(61), "device", seed, "287082"); err != nil {
		t.Errorf("in the next step: %v", err)
	}
	if err := m.Check(at(59), "device", "not base32!", "287082"); !errors.Is(err, sts.ErrBadSeed) {
		t.Errorf("a bad seed: got %v, want ErrBadSeed", err)
	}
}
