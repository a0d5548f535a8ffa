package proxy

// SetOwner makes the connections of another user the permitted ones.
func (p *Proxy) SetOwner(user int) { p.owner = user }
