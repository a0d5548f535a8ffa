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
