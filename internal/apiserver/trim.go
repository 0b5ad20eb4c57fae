package apiserver

import (
	"reflect"

	"github.com/emicklei/go-restful/v3"
	genericapiserver "k8s.io/apiserver/pkg/server"
	openapicommon "k8s.io/kube-openapi/pkg/common"
)

// trim lets go of what only a server that builds OpenAPI documents needs: about 15 MB. It must
// run after the servers are assembled and before they serve.
func (c *chain) trim() {
	for _, s := range c.servers() {
		trimRoutes(s.Handler.GoRestfulContainer)
	}
	dropDefinitions(c.config)
}

// dropDefinitions empties the configuration that all servers share, rather than only its
// definitions: the first type converter leaves a closure in it that holds them too.
func dropDefinitions(gc *genericapiserver.Config) {
	*gc.OpenAPIV3Config = openapicommon.OpenAPIV3Config{}
}

// trimRoutes drops the documentation of some 1,500 routes, and the regular expressions that
// restful compiles for each of them but that the CurlyRouter, upstream's choice, never uses.
// Routes returns copies, but copies that share their slices, maps and pointers.
func trimRoutes(c *restful.Container) {
	for _, ws := range c.RegisteredWebServices() {
		for _, r := range ws.Routes() {
			clear(r.ParameterDocs)
			clear(r.ResponseErrors)
			clear(r.Metadata)
			dropMatcher(reflect.ValueOf(r).FieldByName("pathExpr"))
		}
	}
}

// dropMatcher sets the exported field Matcher of the unexported structure behind expr to nil. If
// restful changes its structures this does nothing.
func dropMatcher(expr reflect.Value) {
	if expr.Kind() != reflect.Pointer || expr.IsNil() || expr.Type().Elem().Kind() != reflect.Struct {
		return
	}
	m := reflect.NewAt(expr.Type().Elem(), expr.UnsafePointer()).Elem().FieldByName("Matcher")
	if m.IsValid() && m.CanSet() {
		m.SetZero()
	}
}
