package handover

// Wait waits for the work that continues in the background.
func (a *Admin) Wait() {
	a.work.Wait()
	a.TestOnlyWait()
}

// MembershipsQuery is the query of a strip.
var MembershipsQuery = membershipsQuery
