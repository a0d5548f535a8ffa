package iam

// MaxWork is maxWork.
const MaxWork = maxWork

// Steps returns the number of steps that a decision takes.
func (p *Policies) Steps(r *Request) int {
	q := newQuery(r)
	p.evaluate(&q)
	return int(q.work)
}
