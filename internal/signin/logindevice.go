package signin

import (
	"crypto/subtle"
	"net/http"
	"time"
)

// This file is for `daypass login --device`: the flow of device.go, with the keys and refresh
// tokens of the sign-in service.
//
//	device    sends  POST /v1/device_authorization   its name, DPoP: a device code, and a user code to show
//	device    sends  POST /v1/token                  device code, DPoP, again and again: keys and a refresh token
//
// AWS's sign-in service has no such flow, so only daypass speaks it. Three things differ from a
// client of SSO OIDC: the device code is bound to a key of the device, so it is worth nothing to
// anyone else who sees it; the person chooses one IAM role on the page; and the answer has no
// address with the user code in it, because a person who has to type the code looks at it.

// startLogin gives a device its codes.
func (e *exchange) startLogin() {
	var in struct {
		ClientID   string `json:"clientId"`
		ClientName string `json:"clientName"`
	}
	if !e.readJSON(4<<10, &in) {
		return
	}
	if in.ClientName == "" {
		e.tokenError(invalid("clientName is required."))
		return
	}
	if in.ClientID != crossDevice {
		e.tokenError(invalid("clientId must be " + crossDevice + "."))
		return
	}
	proof, refused := e.proof(pathLoginDevice)
	if refused != nil {
		e.tokenError(refused)
		return
	}
	code := e.newDeviceCode(printable(in.ClientName))
	code.Key = proof.key
	text, err := seal(e.keyring, e.now, forLoginDevice, code)
	if err != nil {
		e.config.Log.ErrorContext(e.r.Context(), "signing in", "err", err)
		e.tokenError(&tokenError{http.StatusInternalServerError, errServer, "Signing in has failed because of an internal error."})
		return
	}
	e.writeJSON(http.StatusOK, map[string]any{
		"deviceCode": text, "userCode": shown(code.UserCode), "verificationUri": e.settings.URL + pathDevice,
		"expiresIn": int(deviceLifetime / time.Second), "interval": int(pollInterval / time.Second),
	})
}

// pollLogin answers a device that waits for keys. Its proofs are remembered only when it gets
// keys: anyone can get a device code, and strangers must not fill the memory for proofs.
func (e *exchange) pollLogin(in *tokenRequest, shown *proof) (*tokenAnswer, *tokenError) {
	var code deviceCode
	if in.ClientID != crossDevice || unseal(e.keyring, e.now, forLoginDevice, in.DeviceCode, &code) != nil ||
		subtle.ConstantTimeCompare(code.Key, shown.key) != 1 {
		return nil, invalid("deviceCode is not one of this server's, or was given to another client.")
	}
	met, problem := e.allowedMeeting(&code)
	if problem != nil {
		return nil, e.deviceError(problem)
	}
	if refused := e.take(met.Identity.Session, shown); refused != nil {
		return nil, refused
	}
	keys, refused := e.issue(&refresh{Identity: *met.Identity, Role: met.Role, RoleID: met.RoleID, ClientID: crossDevice, Key: shown.key,
		NotAfter: met.Identity.Since + int64(e.settings.Duration/time.Second)}, grantDevice)
	if refused != nil {
		return nil, refused
	}
	if problem := e.collect(&code); problem != nil {
		return nil, e.deviceError(problem)
	}
	return keys, nil
}

// deviceError returns a problem of a device code as an error of the sign-in service.
func (e *exchange) deviceError(problem *oidcProblem) *tokenError {
	if problem.logged != nil {
		e.config.Log.ErrorContext(e.r.Context(), "signing in", "err", problem.logged)
	}
	return &tokenError{problem.status, problem.code, problem.description}
}
