package registrytest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/daypass/daypass/internal/registry"
)

// Memory is a registry.Store in memory that fails on demand: before a write is persisted,
// after it, or while reading. The zero value is empty and works. Registries share a store by
// using the same Memory.
type Memory struct {
	// Fail is called with the method's name before each call does anything and, with
	// persisted set, after a write was persisted. The method returns the error that Fail
	// returns. Watch calls it at each beat. It is called without locks. Optional.
	Fail func(method string, persisted bool) error

	mu       sync.Mutex // guards what follows
	records  map[string]registry.Record
	revision uint64
	changed  chan struct{}
}

var _ registry.Store = (*Memory)(nil)

func (m *Memory) fail(ctx context.Context, method string, persisted bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.Fail == nil {
		return nil
	}
	return m.Fail(method, persisted)
}

// Get implements registry.Store.
func (m *Memory) Get(ctx context.Context, key string) (registry.Record, error) {
	if err := m.fail(ctx, "Get", false); err != nil {
		return registry.Record{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	record, ok := m.records[key]
	if !ok {
		return registry.Record{}, registry.ErrNotFound
	}
	return record, nil
}

// List implements registry.Store.
func (m *Memory) List(ctx context.Context, prefix string) ([]registry.Record, error) {
	if err := m.fail(ctx, "List", false); err != nil {
		return nil, err
	}
	list, _, _ := m.list(prefix)
	return list, nil
}

func (m *Memory) list(prefix string) ([]registry.Record, uint64, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	var list []registry.Record
	for key, record := range m.records {
		if strings.HasPrefix(key, prefix) {
			list = append(list, record)
		}
	}
	slices.SortFunc(list, func(a, b registry.Record) int { return strings.Compare(a.Key, b.Key) })
	return list, m.revision, m.changed
}

// Create implements registry.Store.
func (m *Memory) Create(ctx context.Context, key string, value []byte) (registry.Record, error) {
	return m.write(ctx, "Create", registry.Record{Key: key}, value)
}

// Replace implements registry.Store.
func (m *Memory) Replace(ctx context.Context, old registry.Record, value []byte) (registry.Record, error) {
	return m.write(ctx, "Replace", old, value)
}

// Delete implements registry.Store.
func (m *Memory) Delete(ctx context.Context, old registry.Record) error {
	_, err := m.write(ctx, "Delete", old, nil)
	return err
}

func (m *Memory) write(ctx context.Context, method string, old registry.Record, value []byte) (registry.Record, error) {
	if err := m.fail(ctx, method, false); err != nil {
		return registry.Record{}, err
	}
	record, err := m.swap(method, old, value)
	if err == nil {
		err = m.fail(ctx, method, true)
	}
	if err != nil {
		return registry.Record{}, err
	}
	return record, nil
}

func (m *Memory) swap(method string, old registry.Record, value []byte) (registry.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records[old.Key].Revision != old.Revision {
		return registry.Record{}, registry.ErrConflict
	}
	if m.records == nil {
		m.records = map[string]registry.Record{}
	}
	m.revision++
	record := registry.Record{Key: old.Key, Value: slices.Clone(value), Revision: m.revision}
	if method == "Delete" {
		delete(m.records, old.Key)
	} else {
		m.records[old.Key] = record
	}
	if m.changed != nil {
		close(m.changed)
	}
	m.changed = make(chan struct{})
	return record, nil
}

// Watch implements registry.Store.
func (m *Memory) Watch(ctx context.Context, prefix string, see func([]registry.Record, bool, time.Time)) error {
	var seen uint64
	for first := true; ; first = false {
		if err := m.fail(ctx, "Watch", false); err != nil {
			return err
		}
		asOf := time.Now()
		list, revision, changed := m.list(prefix)
		if first || revision != seen {
			see(list, true, asOf)
		} else {
			see(nil, false, asOf)
		}
		seen = revision
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-time.After(registry.Beat / 2):
		}
	}
}
