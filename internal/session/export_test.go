package session

// Tick does what happens in the watch over a direction that is blocked when time passes, and reports
// whether the direction is blocked and has stalled.
func (s *Session) Tick(toClient bool) (blocked, stalled bool) {
	w := &s.up.stall
	if toClient {
		w = &s.down.stall
	}
	if !w.blocked.Load() {
		return false, false
	}
	w.tick()
	s.mu.Lock()
	defer s.mu.Unlock()
	return w.blocked.Load(), w.still > stallTicks
}
