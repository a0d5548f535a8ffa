package throttle_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/throttle"
)

// TestBytes: a caller that has written too much waits until the debt is paid; other callers do
// not.
func TestBytes(t *testing.T) {
	k := throttle.NewKeys[string](throttle.Limit{Bytes: 100, BytesBurst: 1000}, 1000)
	spend := func(key string, bytes int, now time.Time) bool {
		p, v := k.Enter(key, now)
		if v != throttle.Admitted {
			return false
		}
		k.Charge(key, bytes, now)
		k.Leave(key, p)
		return true
	}
	for _, row := range []struct {
		after time.Duration
		key   string
		bytes int
		want  bool
	}{
		{0, "ana", 900, true},
		{0, "ana", 900, true}, // begun with something left
		{0, "ana", 1, false},
		{0, "bob", 1000, true},
		{8 * time.Second, "ana", 1, false}, // 800 of debt were paid
		{9 * time.Second, "ana", 1, true},
		{time.Hour, "ana", 1000, true}, // no more than the burst
		{time.Hour, "ana", 1, false},
	} {
		if got := spend(row.key, row.bytes, noon.Add(row.after)); got != row.want {
			t.Errorf("after %v %s may write %d: %t, want %t", row.after, row.key, row.bytes, got, row.want)
		}
	}
}

// TestBytesAreRemembered: a flood of keys does not evict a key that is in debt.
func TestBytesAreRemembered(t *testing.T) {
	k := throttle.NewKeys[string](throttle.Limit{Bytes: 1, BytesBurst: 1000}, 160)
	p, _ := k.Enter("greedy", noon)
	k.Charge("greedy", 1000, noon)
	k.Leave("greedy", p)
	for i := range 5000 {
		admitted(k, fmt.Sprint("key ", i), 1, noon)
	}
	if admitted(k, "greedy", 1, noon) != 0 {
		t.Error("greedy was forgotten")
	}
}

// TestLines: whether they share an address, share a name, or share nothing, strangers cause no
// more lines and bytes than the bounds allow. The lines that are written count the omitted ones.
func TestLines(t *testing.T) {
	one := throttle.Limit{Rate: 1, Burst: 10, Bytes: 100, BytesBurst: 2000}
	all := throttle.Limit{Rate: 10, Burst: 100, Bytes: 1000, BytesBurst: 10_000}
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}) }
	for _, row := range []struct {
		name  string
		who   func(i int) throttle.Stranger
		bytes int
		limit throttle.Limit
	}{
		{"one address, short lines", func(int) throttle.Stranger { return throttle.Stranger{Address: address(0)} }, 10, one},
		{"one address, long lines", func(int) throttle.Stranger { return throttle.Stranger{Address: address(0)} }, 500, one},
		{"one name, long lines", func(i int) throttle.Stranger { return throttle.Stranger{Address: address(i), Name: "AKIA"} }, 500, one},
		{"many, short lines", func(i int) throttle.Stranger { return throttle.Stranger{Address: address(i), Name: fmt.Sprint(i)} }, 10, all},
		{"many, long lines", func(i int) throttle.Stranger { return throttle.Stranger{Address: address(i), Name: fmt.Sprint(i)} }, 500, all},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := throttle.NewLines(one, all)
			const attempts, within = 20_000, 60 * time.Second
			lines, told := 0, int64(0)
			for i := range attempts {
				write, omitted := l.Next(row.who(i), row.bytes, noon.Add(within*time.Duration(i)/attempts))
				if write {
					lines++
				}
				told += omitted
			}
			most := min(int(row.limit.Rate*within.Seconds())+row.limit.Burst, int(row.limit.Most(within, 0))/row.bytes)
			if lines > most || lines < most*9/10 {
				t.Errorf("%d lines of %d bytes, want about %d and no more", lines, row.bytes, most)
			}
			// What came after the last line is told with the next one.
			_, omitted := l.Next(throttle.Stranger{Address: address(-1)}, 1, noon.Add(within+time.Minute))
			if told += omitted; told != int64(attempts-lines) {
				t.Errorf("the lines tell of %d that have none, want %d", told, attempts-lines)
			}
		})
	}
}
