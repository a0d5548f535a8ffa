// Package jmespath evaluates JMESPath expressions, the language of the --query
// option of the AWS CLI, over values whose objects keep the order of their
// keys.
//
// It implements the JMESPath specification (https://jmespath.org/specification.html):
// the whole grammar and all its functions. Where the specification leaves a
// choice, or where the AWS CLI differs from it, the CLI is followed, because
// output that is equal byte for byte is the point: numbers keep the difference
// between integers and fractions, ordering compares strings too, a
// multi-select hash keeps the order in which it was written, a comma may be
// left out where the CLI's parser lets it be left out, and the texts of the
// errors are the same.
//
// Values are nil, bool, string, *big.Int, float64, []any, *Object and Time.
// The package does no I/O, and its functions never change a value they were
// given. An Expression is safe for concurrent use.
package jmespath

// Expression is a compiled JMESPath expression.
type Expression struct {
	text string
	root *node
}

// Compile parses an expression. The error is a *SyntaxError.
func Compile(text string) (*Expression, error) {
	tokens, err := tokenize(text)
	if err != nil {
		return nil, err
	}
	p := parser{text: text, tokens: tokens}
	root, err := p.parse()
	if err != nil {
		return nil, err
	}
	return &Expression{text: text, root: root}, nil
}

// String returns the text that was compiled.
func (e *Expression) String() string { return e.text }

// Search evaluates the expression over a value. What is not there is nil; an
// error means that a function was called with arguments it does not take, or
// does not exist.
func (e *Expression) Search(value any) (any, error) {
	return e.root.eval(value)
}

// SyntaxError says why an expression could not be compiled, in the words of
// the AWS CLI, with a line that points at the place.
type SyntaxError struct {
	message string
}

func (e *SyntaxError) Error() string { return e.message }

// EvalError says why a compiled expression could not be evaluated.
type EvalError struct {
	message string
}

func (e *EvalError) Error() string { return e.message }
