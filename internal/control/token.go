package control

import (
	"context"
	"fmt"
	"os"

	"k8s.io/client-go/util/keyutil"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
	serviceaccountcontroller "k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

// newTokenController makes the tokens of Secrets of type kubernetes.io/service-account-token. It is
// the one controller whose constructor upstream keeps to itself.
func newTokenController(ctx context.Context, process clients, shared app.ControllerContext) (app.Controller, error) {
	settings := shared.ComponentConfig.SAController
	key, err := keyutil.PrivateKeyFromFile(settings.ServiceAccountKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the key of service account tokens: %w", err)
	}
	ca, err := os.ReadFile(settings.RootCAFile)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's certificate: %w", err)
	}
	generator, err := serviceaccount.JWTTokenGenerator(serviceaccount.LegacyIssuer, key)
	if err != nil {
		return nil, fmt.Errorf("sign tokens with %s: %w", settings.ServiceAccountKeyFile, err)
	}
	// Upstream's acts as the process too: it makes the tokens that others act with, and has no role.
	client, err := process.client("tokens-controller")
	if err != nil {
		return nil, err
	}
	controller, err := serviceaccountcontroller.NewTokensController(klog.FromContext(ctx),
		shared.InformerFactory.Core().V1().ServiceAccounts(), shared.InformerFactory.Core().V1().Secrets(), client,
		serviceaccountcontroller.TokensControllerOptions{TokenGenerator: generator, RootCA: ca})
	if err != nil {
		return nil, fmt.Errorf("new controller: %w", err)
	}
	return own{names.ServiceAccountTokenController, func(ctx context.Context) {
		controller.Run(ctx, int(settings.ConcurrentSATokenSyncs))
	}}, nil
}
