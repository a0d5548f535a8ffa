package peer

import (
	"net/http"
	"time"
)

// HandlerForTest is the handler that answers peers after the handshake.
func HandlerForTest(service Service) http.Handler { return handler(service) }

// PatientClientForTest is NewClient, but the caller says how long a peer may take to answer.
func PatientClientForTest(identity *Identity, peers func() []Peer, patience time.Duration) *Client {
	return newClient(identity, peers, patience)
}
