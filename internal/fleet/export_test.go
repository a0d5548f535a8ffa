package fleet

import (
	"time"

	"github.com/daypass/daypass/internal/keyring"
)

// CertifyForTest returns the value of a signer's record, for any key.
func CertifyForTest(roots *keyring.Roots, id, server string) []byte {
	s := keyring.NewSigner(time.Now())
	return certify(roots, signerPrefix+id, signerStatement{Version: recordVersion, Server: server, Public: s.Public(), Epoch: 1 << 32,
		Created: time.Now(), Certified: time.Now(), SignsUntil: time.Now().Add(window)})
}
