package api_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"time"
)

// totp implements RFC 6238 again, so that the test does not rely on the code under test.
func totp(key []byte, now time.Time) string {
	mac := hmac.New(sha1.New, key)
	binary.Write(mac, binary.BigEndian, uint64(now.Unix()/30))
	sum := mac.Sum(nil)
	at := sum[19] & 15
	return fmt.Sprintf("%06d", (uint32(sum[at]&127)<<24|uint32(sum[at+1])<<16|uint32(sum[at+2])<<8|uint32(sum[at+3]))%1000000)
}
