package session

import "time"

// Parking bounds, in number and time, the upstream sessions of a cluster that are kept for
// another session after their client has left. The zero value keeps none.
type Parking struct {
	Max  int           // in all; 0: none
	Idle time.Duration // for one to be parked; default 30 s
	Age  time.Duration // of the upstream session; default 10 min
}

// WithDefaults returns p with defaults in place of zero durations.
func (p Parking) WithDefaults() Parking {
	if p.Idle <= 0 {
		p.Idle = 30 * time.Second
	}
	if p.Age <= 0 {
		p.Age = 10 * time.Minute
	}
	return p
}
