package peer

import "net/http"

// HandlerForTest is the handler that answers peers after the handshake.
func HandlerForTest(service Service) http.Handler { return handler(service) }
