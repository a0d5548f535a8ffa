package dbuser

import (
	"context"
	"sync"
)

// turns let one change for each database user wait for the lane. A holder may have a session role for
// each set of groups, and keep the rows of all of them locked: each change of one then uses the lane for
// as long as it waits for the lock, and all together could leave none of it for others. The zero value
// is ready. Safe for concurrent use.
type turns struct {
	mu    sync.Mutex
	users map[string]*turn // of users that have changes
}

type turn struct {
	token   chan struct{}
	changes int // that have the token or wait for it; guarded by turns.mu
}

// take waits for the user's turn. Unless it returns an error, the caller has to call leave.
func (t *turns) take(ctx context.Context, user string) (leave func(), err error) {
	t.mu.Lock()
	if t.users == nil {
		t.users = map[string]*turn{}
	}
	one := t.users[user]
	if one == nil {
		one = &turn{token: make(chan struct{}, 1)}
		t.users[user] = one
	}
	one.changes++
	t.mu.Unlock()
	done := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.changes--; one.changes == 0 {
			delete(t.users, user)
		}
	}
	select {
	case one.token <- struct{}{}:
		return func() {
			<-one.token
			done()
		}, nil
	case <-ctx.Done():
		done()
		return nil, ctx.Err()
	}
}
