package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/daypass/daypass/internal/config"
)

// withoutWebPages keeps web pages away from a listener that asks for no password:
// a browser on this machine reaches it, and so does every page that is open there.
//
//   - Host has to be a loopback address, localhost or one of names, with any port. A
//     page whose own name resolves to 127.0.0.1 (DNS rebinding) could read answers; its
//     requests have that name as their Host. No Host at all is a monitor that speaks
//     HTTP/1.0, and never a browser.
//   - Requests that another site caused are refused: they read nothing, but a profile
//     costs time. Browsers say so in Sec-Fetch-Site, older ones in Origin. A URL that
//     a person types has neither.
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

// hostName is a Host header without its port, in small letters.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	return strings.ToLower(host)
}

func contains(names []string, host string) bool {
	for _, name := range names {
		if name != "" && strings.EqualFold(name, host) {
			return true
		}
	}
	return false
}

func refuse(w http.ResponseWriter, status int, why string) {
	plainText(w)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, why+"\n")
}
