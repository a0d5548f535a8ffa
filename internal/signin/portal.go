package signin

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/sts"
)

// The paths of the portal of IAM Identity Center.
const (
	pathCredentials = "/federation/credentials"
	pathAccounts    = "/assignment/accounts"
	pathRoles       = "/assignment/roles"
	pathLogout      = "/logout"
)

const bearerHeader = "X-Amz-Sso_bearer_token"

// maxPage is how many entries a list has at most, and by default.
const maxPage = 100

// portalError answers with an error of the portal's model. The model has no error for a person who
// may not have an IAM role; AWS answers ForbiddenException in that case.
func (e *exchange) portalError(status int, message string) {
	exception := "InvalidRequestException"
	switch {
	case status == http.StatusUnauthorized:
		exception = "UnauthorizedException"
	case status == http.StatusForbidden:
		exception = "ForbiddenException"
	case status == http.StatusNotFound:
		exception = "ResourceNotFoundException"
	case status == http.StatusTooManyRequests:
		exception = "TooManyRequestsException"
	case status >= 500:
		exception = "InternalServerException"
	case status == http.StatusMethodNotAllowed:
		status = http.StatusBadRequest
	}
	e.w.Header().Set("X-Amzn-ErrorType", exception)
	e.writeJSON(status, map[string]string{"message": message})
}

// accessToken returns the access token that came with the request. Otherwise it has already answered.
func (e *exchange) accessToken() (*grant, bool) {
	var g grant
	given := e.r.Header.Values(bearerHeader)
	switch {
	case len(given) != 1 || unseal(e.keyring, e.now, forAccess, given[0], &g) != nil:
		e.portalError(http.StatusUnauthorized, "The access token is not one of this server's. "+signInAgain)
		return nil, false
	case !e.people.Take(g.Identity.Session, 0, e.now):
		e.portalError(http.StatusTooManyRequests, "You sent too many requests at once. Try again in a minute.")
		return nil, false
	}
	return &g, true
}

// bearer returns the person whose access token came with the request. Otherwise it has already
// answered.
func (e *exchange) bearer(event string) (*sts.Person, *grant, bool) {
	g, ok := e.accessToken()
	if !ok {
		return nil, nil, false
	}
	if e.now.Unix() >= g.NotAfter {
		e.portalError(http.StatusUnauthorized, "The access token has expired. "+signInAgain)
		return nil, nil, false
	}
	who, ended, err := e.signedIn(g, Check{Event: event})
	switch {
	case ended != nil:
		e.portalError(http.StatusUnauthorized, ended.Message)
		return nil, nil, false
	case err != nil:
		e.portalRefusal(err)
		return nil, nil, false
	}
	return who, g, true
}

// portalRefusal answers a refusal of the Authority, or an internal error.
func (e *exchange) portalRefusal(err error) {
	refusal, ok := errors.AsType[*Refusal](err)
	switch {
	case !ok:
		e.config.Log.ErrorContext(e.r.Context(), "signing in", "err", err)
		e.portalError(http.StatusInternalServerError, "The request has failed because of an internal error.")
	case refusal.Kind == SignedOut:
		e.portalError(http.StatusUnauthorized, refusal.Message)
	case refusal.Kind == TooMany:
		e.portalError(http.StatusTooManyRequests, refusal.Message)
	case refusal.Kind == Unavailable:
		e.portalError(http.StatusServiceUnavailable, refusal.Message)
	default:
		e.portalError(http.StatusForbidden, refusal.Message)
	}
}

// query returns the parameters of the request, if none is repeated and all of required are present.
// Otherwise it has already answered.
func (e *exchange) query(required ...string) (url.Values, bool) {
	values, err := url.ParseQuery(e.r.URL.RawQuery)
	if err != nil {
		e.portalError(http.StatusBadRequest, "The query is malformed.")
		return nil, false
	}
	for name, list := range values {
		if len(list) != 1 {
			e.portalError(http.StatusBadRequest, quoted(name)+" is duplicated.")
			return nil, false
		}
	}
	for _, name := range required {
		if values.Get(name) == "" {
			e.portalError(http.StatusBadRequest, name+" is required.")
			return nil, false
		}
	}
	return values, true
}

// roleCredentials is the operation GetRoleCredentials.
func (e *exchange) roleCredentials() {
	values, ok := e.query("role_name", "account_id")
	if !ok {
		return
	}
	who, g, ok := e.bearer("GetRoleCredentials")
	if !ok {
		return
	}
	if account := values.Get("account_id"); account != e.directory.Account {
		e.portalError(http.StatusForbidden, "No access: this server's account is "+e.directory.Account+".")
		return
	}
	keys, err := e.config.Authority.Assume(e.r, who, Assumption{Role: values.Get("role_name"), Lifetime: e.end(&g.Identity).Sub(e.now), Portal: true})
	if err != nil {
		e.portalRefusal(err)
		return
	}
	e.writeJSON(http.StatusOK, map[string]any{"roleCredentials": map[string]any{
		"accessKeyId": keys.AccessKeyID, "secretAccessKey": keys.Secret.Reveal(), "sessionToken": keys.Token.Reveal(), "expiration": keys.Expiration.UnixMilli(),
	}})
}

// openNames returns the names of the IAM roles that let the person in, sorted.
func (e *exchange) openNames(who *sts.Person) ([]string, bool) {
	roles, err := e.config.Authority.Roles(e.r, who)
	if err != nil {
		e.portalRefusal(err)
		return nil, false
	}
	var names []string
	for _, role := range roles {
		if role.Open {
			names = append(names, role.Name)
		}
	}
	slices.Sort(names)
	return names, true
}

// listAccounts is the operation ListAccounts. There is one account at most.
func (e *exchange) listAccounts() {
	values, ok := e.query()
	if !ok {
		return
	}
	who, _, ok := e.bearer("ListAccounts")
	if !ok {
		return
	}
	names, ok := e.openNames(who)
	if !ok {
		return
	}
	accounts := []map[string]string{}
	if len(names) > 0 {
		host := e.settings.URL
		if at, err := url.Parse(host); err == nil {
			host = at.Hostname()
		}
		accounts = append(accounts, map[string]string{"accountId": e.directory.Account, "accountName": host, "emailAddress": who.Session})
	}
	e.writePage("accountList", values, accounts, func(a map[string]string) string { return a["accountId"] })
}

// listRoles is the operation ListAccountRoles.
func (e *exchange) listRoles() {
	values, ok := e.query("account_id")
	if !ok {
		return
	}
	who, _, ok := e.bearer("ListAccountRoles")
	if !ok {
		return
	}
	names, ok := e.openNames(who)
	if !ok {
		return
	}
	if values.Get("account_id") != e.directory.Account {
		names = nil
	}
	roles := make([]map[string]string, len(names))
	for i, name := range names {
		roles[i] = map[string]string{"roleName": name, "accountId": e.directory.Account}
	}
	e.writePage("roleList", values, roles, func(r map[string]string) string { return r["roleName"] })
}

// writePage answers with the part of a list that follows the entry that next_token names.
func (e *exchange) writePage(name string, values url.Values, list []map[string]string, key func(map[string]string) string) {
	most := maxPage
	if text := values.Get("max_result"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxPage {
			e.portalError(http.StatusBadRequest, "max_result must be 1 to 100.")
			return
		}
		most = n
	}
	if after := values.Get("next_token"); after != "" {
		at := slices.IndexFunc(list, func(entry map[string]string) bool { return key(entry) > after })
		if at < 0 {
			at = len(list)
		}
		list = list[at:]
	}
	answer := map[string]any{}
	if len(list) > most {
		list = list[:most]
		answer["nextToken"] = key(list[most-1])
	}
	answer[name] = list
	e.writeJSON(http.StatusOK, answer)
}

// logout is the operation Logout: it ends the sign-in, on all servers. Keys that were issued before
// stay valid until they expire. An expired access token is accepted too, because the refresh token
// that was issued with it may still work.
func (e *exchange) logout() {
	g, ok := e.accessToken()
	if !ok {
		return
	}
	err := e.config.UseOnce(e.r.Context(), endedID(g.ID), time.Unix(g.Identity.Since, 0).Add(keyring.SignInLifetime))
	if err != nil && !errors.Is(err, ErrUsed) {
		e.config.Log.ErrorContext(e.r.Context(), "signing in: logging out", "err", err)
		e.portalError(http.StatusServiceUnavailable, "The registry cannot be written at the moment. Try again.")
		return
	}
	e.w.WriteHeader(http.StatusOK)
}
