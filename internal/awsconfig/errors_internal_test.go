package awsconfig

import (
	"errors"
	"strings"
	"testing"
)

// TestRefreshRefusedByTrustPolicy: the SDK's words for a refusal at the refresh name an action that
// no one can be allowed. Ours name the IAM role and the next step.
func TestRefreshRefusedByTrustPolicy(t *testing.T) {
	err := credentialsError(t.Context(), errors.New("failed to refresh cached credentials, create oauth2 token: insufficient permissions, you may be missing permissions for the CreateOAuth2Token action"))
	if failure, ok := errors.AsType[*Failure](err); !ok || failure.Code != ExitConfiguration || !strings.Contains(failure.Plain, "IAM role does not let you in") || !strings.Contains(failure.Plain, "`daypass login`") {
		t.Errorf("%#v", err)
	}
}
