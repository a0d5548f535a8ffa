// Package jmespath evaluates JMESPath expressions, the language of the AWS CLI's
// --query option (https://jmespath.org/specification.html): the whole grammar and all
// functions.
//
// Where the specification leaves a choice, or the AWS CLI differs from it, this package
// does what the AWS CLI does, so that output and error messages are equal byte for
// byte: objects keep the order of their keys, integers are distinct from floats, <
// compares strings too, and commas may be left out where the AWS CLI's parser allows
// it. docs/decisions has the reasons for not using a library.
//
// Values are those of package pyvalue. The package does no I/O and never changes a
// value. An Expression is safe for concurrent use.
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

// Search evaluates the expression over a value. A field that does not exist is nil. The
// error is an *EvalError: an unknown function, or arguments of the wrong type.
func (e *Expression) Search(value any) (any, error) {
	return e.root.eval(value)
}

// SyntaxError is the AWS CLI's message for an expression that cannot be compiled. Its
// last line points at the place.
type SyntaxError struct {
	message string
}

func (e *SyntaxError) Error() string { return e.message }

// EvalError is the AWS CLI's message for an expression that cannot be evaluated.
type EvalError struct {
	message string
}

func (e *EvalError) Error() string { return e.message }
