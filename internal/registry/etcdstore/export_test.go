package etcdstore

import "context"

// Format returns the stored form of a record.
func Format(key, value string) string { return format(key, []byte(value)) }

// Look is one look of a Watch. It reports whether nothing has changed.
func (s *Store) Look(ctx context.Context, count int, revision int64) (bool, error) {
	a := (&watch{store: s}).look(ctx, revision)
	return len(a.records) == 0 && a.count == count, a.err
}

// Reason returns the text of an error from etcd.
func Reason(err error) string {
	return (&Store{prefix: "daypass/", hosts: "10.0.0.1:2379"}).explain(err).Error()
}

// Store returns the store that the lease belongs to.
func (l *Lease) Store() *Store { return l.store }
