package peer

import "net/http"

// HandlerForTest is what answers peers behind the handshake.
func HandlerForTest(service Service) http.Handler { return handler(service) }
