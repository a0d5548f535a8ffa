package iam

// MaxWork is maxWork.
const MaxWork = maxWork

// Steps is what deciding a request takes.
func (p *Policies) Steps(r *Request) int {
	q := newQuery(r)
	p.evaluate(&q)
	return int(q.work)
}
