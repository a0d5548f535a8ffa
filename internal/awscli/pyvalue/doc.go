// Package pyvalue holds values as the AWS CLI, a Python program, has them, and writes
// them as it does. Scripts depend on that text.
//
// A value is nil, bool, string, *big.Int, float64, []any, *Object or Time. Objects
// keep the order of their keys, and integers of any size are told from fractions. JSON
// is read and written as Python's json module does it, with its error messages; Str and
// Repr write a value as Python's str() and repr() do.
//
// The package does no I/O, and its functions never change a value they were given.
package pyvalue
