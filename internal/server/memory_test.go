package server

import "testing"

// TestGCPercent: a small heap may grow by slack, a large one by its own size.
func TestGCPercent(t *testing.T) {
	for _, row := range []struct {
		live uint64
		want int
	}{
		{0, 400}, {4 << 20, 400}, {8 << 20, 400}, {10 << 20, 300}, {16 << 20, 200}, {24 << 20, 100}, {32 << 20, 100}, {1 << 30, 100},
	} {
		if got := gcPercent(row.live); got != row.want {
			t.Errorf("gcPercent(%d) = %d, want %d", row.live, got, row.want)
		}
	}
}

// TestTidyTime: the thresholds of isTidyTime grow with the heap, so a steady load on a large heap
// does not cause a collection every second.
func TestTidyTime(t *testing.T) {
	for _, row := range []struct {
		lately, since, live uint64
		want                bool
	}{
		{100 << 10, 5 << 20, 4 << 20, true},
		{100 << 10, 3 << 20, 4 << 20, false},
		{300 << 10, 5 << 20, 4 << 20, false},
		{5 << 20, 800 << 20, 200 << 20, true},
		{100 << 10, 60 << 20, 24 << 20, false}, // 5,000 idle sessions, and 4,000 calls
		{100 << 10, 70 << 20, 24 << 20, true},
		{5 << 20, 5 << 20, 200 << 20, false}, // a second after the last time
		{9 << 20, 800 << 20, 200 << 20, false},
	} {
		if got := isTidyTime(row.lately, row.since, row.live); got != row.want {
			t.Errorf("isTidyTime(%d, %d, %d) = %t", row.lately, row.since, row.live, got)
		}
	}
}
