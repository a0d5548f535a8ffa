package console

import (
	"net/http"
	"net/url"

	"github.com/daypass/daypass/internal/api"
)

// offersPage is what a person may ask for.
type offersPage struct {
	Clusters []clusterOffer
	Complete bool
}

type clusterOffer struct{ api.Offer }

// Link returns the URL of the credential form, filled in.
func (c clusterOffer) Link(user api.OfferedUser, database api.OfferedDatabase) string {
	q := url.Values{"cluster": {c.Cluster}}
	if !user.Pattern {
		q.Set("user", user.Name)
	}
	if !database.Pattern {
		q.Set("database", database.Name)
	}
	return prefix + "credential?" + q.Encode()
}

// IdentityLink returns the same for a credential of the IAM identity.
func (c clusterOffer) IdentityLink(database api.OfferedDatabase) string {
	q := url.Values{"cluster": {c.Cluster}, "as": {asIdentity}}
	if !database.Pattern {
		q.Set("database", database.Name)
	}
	return prefix + "credential?" + q.Encode()
}

func (e *exchange) offers() {
	offers, complete, err := e.config.API.Offers(e.r, OfSession(e.session))
	if err != nil {
		e.failed(err)
		return
	}
	page := offersPage{Complete: complete}
	for _, o := range offers {
		page.Clusters = append(page.Clusters, clusterOffer{o})
	}
	e.show(http.StatusOK, "offers", page)
}
