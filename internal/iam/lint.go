package iam

// Warnings are the places in the document that cannot have been meant as they
// are written, in the order of the document.
func (p *Policy) Warnings() []Warning { return nil }
