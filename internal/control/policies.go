package control

import (
	"context"
	"fmt"
	"sync"

	apiextensionsscheme "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/scheme"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
	"k8s.io/kubernetes/pkg/controller/validatingadmissionpolicystatus"
	"k8s.io/kubernetes/pkg/generated/openapi"
)

// newPolicyController checks the types of ValidatingAdmissionPolicies and tells in their status. It is
// upstream's, but for the schemas of all built-in kinds: those are made when there is a policy to
// check, since they cost 5 MB.
func newPolicyController(_ context.Context, _ clients, shared app.ControllerContext) (app.Controller, error) {
	discovery, err := shared.ClientBuilder.DiscoveryClient(names.ValidatingAdmissionPolicyStatusController)
	if err != nil {
		return nil, fmt.Errorf("make discovery client: %w", err)
	}
	client, err := shared.NewClient(names.ValidatingAdmissionPolicyStatusController)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	controller, err := validatingadmissionpolicystatus.NewController(
		shared.InformerFactory.Admissionregistration().V1().ValidatingAdmissionPolicies(),
		client.AdmissionregistrationV1().ValidatingAdmissionPolicies(),
		&validating.TypeChecker{
			SchemaResolver: schemas(sync.OnceValue(func() resolver.SchemaResolver {
				return resolver.NewDefinitionsSchemaResolver(openapi.GetOpenAPIDefinitions, scheme.Scheme, apiextensionsscheme.Scheme).
					Combine(&resolver.ClientDiscoveryResolver{Discovery: discovery})
			})),
			RestMapper: shared.RESTMapper,
		})
	if err != nil {
		return nil, fmt.Errorf("new controller: %w", err)
	}
	workers := int(shared.ComponentConfig.ValidatingAdmissionPolicyStatusController.ConcurrentPolicySyncs)
	return own{names.ValidatingAdmissionPolicyStatusController, func(ctx context.Context) { controller.Run(ctx, workers) }}, nil
}

// schemas is a resolver that is made when it is first asked.
type schemas func() resolver.SchemaResolver

// ResolveSchema returns the schema of a kind.
func (s schemas) ResolveSchema(kind schema.GroupVersionKind) (*spec.Schema, error) {
	return s().ResolveSchema(kind)
}
