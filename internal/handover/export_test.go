package handover

// Wait waits for what runs behind the callers.
func (a *Admin) Wait() {
	a.work.Wait()
	a.TestOnlyWait()
}
