// Package pyvalue represents values as the AWS CLI does, which is a Python program, and
// writes them in the same form, on which scripts depend.
//
// A value is nil, bool, string, *big.Int, float64, []any, *Object or Time. Objects
// keep the order of their keys, and integers of any size are distinct from floats. JSON
// is read and written as Python's json module does it, with its error messages; Str and
// Repr write a value as Python's str() and repr() do.
//
// The package does no I/O, and its functions never change a value they were given.
package pyvalue
