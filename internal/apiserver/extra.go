package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server/filters"
	"k8s.io/apiserver/pkg/server/mux"
)

// User returns who makes a request to one of Config.Extra's handlers: authenticated, and allowed the
// path by a rule for nonResourceURLs.
func User(ctx context.Context) (name string, groups []string) {
	u, ok := apirequest.UserFrom(ctx)
	if !ok {
		return "", nil
	}
	return u.GetName(), u.GetGroups()
}

// checkExtra refuses paths that would hide the API or could not be reached.
func checkExtra(extra map[string]http.Handler) error {
	for prefix, h := range extra {
		first, _, _ := strings.Cut(strings.TrimPrefix(prefix, "/"), "/")
		taken := sets.New("", "api", "apis", "healthz", "livez", "readyz", "metrics", "openapi", "version", "debug", "logs")
		if h == nil || !strings.HasPrefix(prefix, "/") || !strings.HasSuffix(prefix, "/") || taken.Has(first) {
			return fmt.Errorf("apiserver: Extra path %q: want a handler below a prefix of its own that begins and ends with a slash", prefix)
		}
	}
	return nil
}

// installExtra serves the handlers behind all of the server's filters.
func installExtra(m *mux.PathRecorderMux, extra map[string]http.Handler) {
	for prefix, h := range extra {
		m.HandlePrefix(prefix, h)
	}
}

// longRunning tells the requests that are not ended after a minute and do not count as load: upstream's,
// and those of extra handlers that say so.
func longRunning(extra func(*http.Request) bool) apirequest.LongRunningRequestCheck {
	basic := filters.BasicLongRunningRequestCheck(
		sets.NewString("watch", "proxy"),
		sets.NewString("attach", "exec", "proxy", "log", "portforward"),
	)
	return func(r *http.Request, info *apirequest.RequestInfo) bool {
		return basic(r, info) || extra != nil && !info.IsResourceRequest && extra(r)
	}
}
