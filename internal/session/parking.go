package session

import "time"

// Parking bounds the upstream sessions of a cluster that are kept for another session
// when their client has left, in number and time. The zero value keeps none.
type Parking struct {
	Max  int           // in all; 0: none
	Idle time.Duration // for one to be parked; default 30 s
	Age  time.Duration // of the upstream session; default 10 min
}

// WithDefaults returns it with the defaults in place of zero times.
func (p Parking) WithDefaults() Parking {
	if p.Idle <= 0 {
		p.Idle = 30 * time.Second
	}
	if p.Age <= 0 {
		p.Age = 10 * time.Minute
	}
	return p
}
