package etcdstore

import (
	"context"
	"time"
)

// Format returns the stored form of a record.
func Format(key, value string) string { return format(key, []byte(value)) }

// Same is one look of a Watch.
func (s *Store) Same(ctx context.Context, count int, revision int64) (bool, error) {
	return s.same(ctx, time.Now().Add(patience), "", count, revision)
}

// Reason returns the text of an error from etcd.
func Reason(err error) string {
	return (&Store{prefix: "daypass/", hosts: "10.0.0.1:2379"}).explain(err).Error()
}
