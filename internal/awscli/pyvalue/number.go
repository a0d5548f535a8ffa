package pyvalue

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
)

// ParseInt reads a decimal integer as the AWS CLI reads it: space around it
// and single underscores between digits are allowed.
func ParseInt(s string) (*big.Int, bool) {
	s = strings.TrimFunc(s, unicode.IsSpace)
	digits, ok := plainDigits(strings.TrimLeft(s[:min(1, len(s))], "+-") + s[min(1, len(s)):])
	if !ok {
		return nil, false
	}
	n, ok := new(big.Int).SetString(digits, 10)
	if ok && strings.HasPrefix(s, "-") {
		n.Neg(n)
	}
	return n, ok
}

// plainDigits drops single underscores that stand between digits, and turns
// the decimal digits of other scripts into 0 to 9.
func plainDigits(s string) (string, bool) {
	var b strings.Builder
	underscore := true // none at the beginning
	for _, r := range s {
		switch {
		case r == '_' && !underscore:
			underscore = true
		case unicode.Is(unicode.Nd, r):
			underscore = false
			b.WriteByte('0' + decimalValue(r))
		default:
			return "", false
		}
	}
	return b.String(), b.Len() > 0 && !underscore
}

// decimalValue returns the value of a decimal digit of any script: they come in
// runs of ten that begin with the zero.
func decimalValue(r rune) byte {
	if r < 0x80 {
		return byte(r - '0')
	}
	n := 0
	for unicode.Is(unicode.Nd, r-1) {
		r--
		n++
	}
	return byte(n % 10)
}

// ParseFloat reads a fraction as the AWS CLI reads it: decimal, nan, inf and
// infinity in any case, underscores between digits.
func ParseFloat(s string) (float64, bool) {
	s = strings.TrimFunc(s, unicode.IsSpace)
	if s == "" || strings.ContainsAny(s, "xXpP") {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if s[i] == '_' && (i == 0 || i == len(s)-1 || !isDigit(s[i-1]) || !isDigit(s[i+1])) {
			return 0, false
		}
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0, false
	}
	return f, true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
