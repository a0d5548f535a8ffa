package api

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/awsquery"
	"github.com/daypass/daypass/internal/directory"
)

// page is a part of a list that is sorted by cluster identifier.
type page struct {
	size  int
	after string // the last identifier of the page before, or empty
}

// readMarker reads MaxRecords and Marker for the audit line, and returns Marker.
func readMarker(r *reader) string {
	r.text("MaxRecords")
	return r.text("Marker").value
}

// readPage validates Marker and MaxRecords, which is 20 to 100, or 100 by default.
func readPage(c *call, marker string) (page, error) {
	size, given, err := c.query.Params.Int("MaxRecords")
	switch {
	case err != nil:
		return page{}, err
	case !given:
		size = 100
	case size < 20 || size > 100:
		return page{}, awsquery.Invalid("MaxRecords", "must be between 20 and 100")
	}
	p := page{size: size}
	if marker != "" {
		after, err := base64.RawURLEncoding.Strict().DecodeString(marker)
		if err != nil || len(after) <= 4 || markerOf(string(after[4:])) != marker {
			return page{}, awsquery.Invalid("Marker", "must be one that an earlier call returned")
		}
		p.after = string(after[4:])
	}
	return p, nil
}

// start returns the index of the page's first cluster. A marker names a place in the
// order, so it does not matter if that cluster no longer exists.
func (p page) start(clusters []*directory.Cluster) int {
	if p.after == "" {
		return 0
	}
	return sort.Search(len(clusters), func(i int) bool { return clusters[i].Identifier > p.after })
}

// markerOf returns the marker for the page after a place. It begins with a checksum, so
// that a mistyped marker is an error and not a shorter list.
func markerOf(place string) string {
	sum := crc32.ChecksumIEEE([]byte(place))
	return base64.RawURLEncoding.EncodeToString(append(binary.BigEndian.AppendUint32(nil, sum), place...))
}

// markerAfter returns the marker for the page after this cluster.
func markerAfter(c *directory.Cluster) string {
	return markerOf(c.Identifier)
}

// sortableTime returns a text that sorts like the time.
func sortableTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000000Z ") }

// pageOf sorts a list by place and returns its page, and the marker of the next one. A
// marker names a place in the order, so rows may come and go between pages.
func pageOf[T any](p page, list []T, place func(T) string) (cut []T, marker string) {
	slices.SortFunc(list, func(a, b T) int { return strings.Compare(place(a), place(b)) })
	from, _ := slices.BinarySearchFunc(list, p.after, func(row T, after string) int {
		if place(row) > after {
			return 1
		}
		return -1
	})
	list = list[from:]
	if len(list) <= p.size {
		return list, ""
	}
	return list[:p.size], markerOf(place(list[p.size-1]))
}
