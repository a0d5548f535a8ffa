package proxy

// SetOwner sets the user that may connect.
func (p *Proxy) SetOwner(user int) { p.owner = user }
