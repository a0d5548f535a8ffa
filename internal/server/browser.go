package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/daypass/daypass/internal/config"
)

// withoutWebPages keeps web pages from using a listener that asks for no password. Any page
// that is open in a browser on this machine can send requests to it.
//
//   - Host has to be a loopback address, localhost or one of names, with any port. A page
//     whose own name resolves to 127.0.0.1 (DNS rebinding) could read answers, but its
//     requests have that name as their Host. A request without Host is allowed: monitors that
//     speak HTTP/1.0 send none, browsers always send one.
//   - Requests that another site caused are refused. The site could not read the answer, but
//     a profile costs time. Browsers mark them with Sec-Fetch-Site, older ones with Origin. A
//     URL that a person types has neither.
//   - The answers may not be shown or loaded by pages of other sites.
func withoutWebPages(names []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Frame-Options", "DENY")
		w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
		host := hostName(r.Host)
		if r.Host != "" && !config.IsLoopback(host) && !contains(names, host) {
			refuse(w, http.StatusMisdirectedRequest, fmt.Sprintf("this listener does not answer for the host %.100q: use localhost, 127.0.0.1 or [::1]", r.Host))
			return
		}
		switch r.Header.Get("Sec-Fetch-Site") {
		case "", "none", "same-origin":
		default:
			refuse(w, http.StatusForbidden, "this listener does not answer requests that another web site causes: open the URL itself")
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" && !strings.EqualFold(origin, "http://"+r.Host) {
			refuse(w, http.StatusForbidden, "this listener does not answer requests of other web sites")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// closeAfterChunks makes a request whose body comes in chunks the last one of its connection. It may have
// had a Content-Length too, which net/http drops. A proxy that goes by that length takes the rest of
// the body for another request, and then gives the answers to the wrong clients, whose credentials are
// in them (RFC 9112, section 6.1). AWS's clients know the length of what they sign.
func closeAfterChunks(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) > 0 {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// hostName returns a Host header without its port, in lower case.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	return strings.ToLower(host)
}

func contains(names []string, host string) bool {
	return host != "" && slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, host) })
}

func refuse(w http.ResponseWriter, status int, why string) {
	plainText(w)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, why+"\n")
}
