package sts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/iam"
)

// claims are the claims of a token, by their exact names (RFC 7519). They are decoded
// once, so that decisions, answers and sealed sessions agree. Objects are
// map[string]any, lists are []any, numbers are json.Number.
type claims map[string]any

// maxNesting bounds how deep objects and lists in a token nest. The tokens that we use
// need four levels.
const maxNesting = 32

// parseClaims decodes the payload of a token, which need not be verified. A duplicate
// name is refused, because another parser may take the other value. Claims become
// condition keys, so two names that policies cannot distinguish count as duplicates,
// also within the claim with the tags.
func parseClaims(payload []byte) (claims, error) {
	if !json.Valid(payload) {
		return nil, ErrNotJWT
	}
	d := claimDecoder{json.NewDecoder(bytes.NewReader(payload))}
	d.UseNumber()
	value, err := d.value(0, iam.FoldKey)
	if err != nil {
		return nil, err
	}
	c, ok := value.(map[string]any)
	if !ok {
		return nil, ErrNotJWT
	}
	return c, nil
}

// claimDecoder reads the tokens of a JSON document that is known to be valid.
type claimDecoder struct{ *json.Decoder }

// value reads one value. fold maps the names of an object's members; two with the same
// result are duplicates.
func (d *claimDecoder) value(depth int, fold func(string) string) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotJWT, err)
	}
	switch token {
	case json.Delim('{'), json.Delim('['):
		if depth == maxNesting {
			return nil, fmt.Errorf("%w: nested too deeply", ErrBadClaims)
		}
	default:
		// The decoder replaces what it cannot decode with U+FFFD, which makes different
		// texts equal.
		if text, ok := token.(string); ok && strings.ContainsRune(text, utf8.RuneError) {
			return nil, fmt.Errorf("%w: a text that is not Unicode", ErrBadClaims)
		}
		return token, nil
	}
	if token == json.Delim('[') {
		list := []any{}
		for d.More() {
			element, err := d.value(depth+1, fold)
			if err != nil {
				return nil, err
			}
			list = append(list, element)
		}
		_, err = d.Token()
		return list, err
	}
	object, seen := map[string]any{}, map[string]bool{}
	for d.More() {
		key, err := d.value(depth+1, fold)
		if err != nil {
			return nil, err
		}
		name := key.(string)
		if seen[fold(name)] {
			return nil, fmt.Errorf("%w: %q is duplicated", ErrBadClaims, name)
		}
		seen[fold(name)] = true
		inner := fold
		if depth == 0 && name != claimTags {
			inner = exactly
		}
		if object[name], err = d.value(depth+1, inner); err != nil {
			return nil, err
		}
	}
	_, err = d.Token()
	return object, err
}

func exactly(name string) string { return name }

// texts returns a list of texts, which is empty if there is no such claim.
func texts(value any) ([]string, bool) {
	if value == nil {
		return nil, true
	}
	list, ok := value.([]any)
	all := make([]string, len(list))
	for i, one := range list {
		if all[i], ok = one.(string); !ok {
			return nil, false
		}
	}
	return all, ok
}

// textOrTexts reads a list of texts, or a single text, because some providers write a list
// of one that way.
func textOrTexts(value any) ([]string, bool) {
	if one, ok := value.(string); ok {
		return []string{one}, true
	}
	return texts(value)
}

// audience returns aud: one text or a list.
func (c claims) audience() ([]string, error) {
	list, ok := textOrTexts(c["aud"])
	if !ok {
		return nil, fmt.Errorf("%w: aud", ErrBadClaims)
	}
	return list, nil
}

// party is azp, the client that the token was given to; empty when no value is set.
func (c claims) party() (string, error) {
	if c["azp"] == nil {
		return "", nil
	}
	party, _ := c["azp"].(string)
	if party == "" {
		return "", fmt.Errorf("%w: azp", ErrBadClaims)
	}
	return party, nil
}

// seconds reads a time, in whole seconds since 1970. It drops a fraction: exp then only
// comes earlier, and for the other times a fraction is less than the allowed difference
// between clocks.
func (c claims) seconds(name string) (seconds int64, there bool, err error) {
	value, there := c[name]
	if !there {
		return 0, false, nil
	}
	number, ok := value.(json.Number)
	whole, _, _ := strings.Cut(number.String(), ".")
	seconds, err = strconv.ParseInt(whole, 10, 64)
	if !ok || err != nil || strings.ContainsAny(number.String(), "eE") {
		return 0, true, fmt.Errorf("%w: %s", ErrBadClaims, name)
	}
	return seconds, true, nil
}
