package sts

import (
	"fmt"
	"slices"
	"strings"
)

// The flat form of the claim claimTags, for providers whose claims cannot be
// objects, as Entra ID's: one claim for each tag, and one for the keys (IAM User
// Guide, id_session-tags, "Passing session tags using AssumeRoleWithWebIdentity").
const (
	claimFlatTag        = claimTags + "/principal_tags/"
	claimFlatTransitive = claimTags + "/transitive_tag_keys"
)

// readFlatTags reads the tags in the flat form, and reports whether there are any.
func (w *WebIdentity) readFlatTags(c claims) (found bool, err error) {
	for name, value := range c {
		key, isTag := strings.CutPrefix(name, claimFlatTag)
		if !isTag && name != claimFlatTransitive {
			continue
		}
		found = true
		values, ok := textOrTexts(value)
		switch {
		case !ok || values == nil:
			return found, fmt.Errorf("%w: %s", ErrBadClaims, name)
		case !isTag:
			w.Transitive = values
		case len(values) != 1:
			return found, fmt.Errorf("%w: %s: a tag has one value", ErrBadClaims, name)
		default:
			w.Tags = append(w.Tags, Tag{Key: key, Value: values[0]})
		}
	}
	slices.SortFunc(w.Tags, func(a, b Tag) int { return strings.Compare(a.Key, b.Key) })
	return found, nil
}
