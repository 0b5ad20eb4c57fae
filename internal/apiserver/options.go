package apiserver

import (
	"context"
	"fmt"
	"net"
	"path/filepath"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/plugin/pkg/admission/defaulttolerationseconds"

	"github.com/podman-swarm/podman-swarm/internal/pki"
)

// issuer is the conventional issuer of ServiceAccount tokens; inside the cluster it resolves to
// the `kubernetes` Service, so its discovery documents can be fetched there.
const issuer = "https://kubernetes.default.svc.cluster.local"

// gates are upstream features that are on by default and cannot work here.
func gates() map[string]bool {
	return map[string]bool{
		// Opens an etcd client at start. Every node of a swarm serves the same version anyway.
		"UnknownVersionInteroperabilityProxy": false,
		// Renews a Lease every 10 s only to say that the server lives: gossip knows.
		"APIServerIdentity": false,
	}
}

// authentication lets anonymous requests through to the health endpoints and nowhere else.
const authentication = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
  - path: /livez
  - path: /readyz
  - path: /healthz
`

// upstreamOptions translates our configuration into kube-apiserver's options.
func upstreamOptions(ctx context.Context, c *Config, l net.Listener) (options.CompletedOptions, error) {
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(gates()); err != nil {
		return options.CompletedOptions{}, fmt.Errorf("set feature gates: %w", err)
	}
	if err := setTolerations(); err != nil {
		return options.CompletedOptions{}, err
	}
	o := options.NewServerRunOptions()
	o.AllowPrivileged = true
	o.ServiceClusterIPRanges = c.ServiceCIDR.Masked().String()
	o.EndpointReconcilerType = "none"
	o.EnableAggregatorRouting = true // no dependence on a Service data path on this host
	o.GenericServerRunOptions.AdvertiseAddress = c.Advertise.AsSlice()
	o.Metrics = nil // nothing to configure; its empty defaults are logged as errors
	o.Features.EnablePriorityAndFairness = true
	o.Admission.GenericAdmission.EnablePlugins = []string{"NodeRestriction"}
	o.Audit.PolicyFile = c.AuditPolicyFile
	o.Audit.LogOptions.Path = c.AuditLogPath
	o.Audit.LogOptions.MaxSize, o.Audit.LogOptions.MaxBackups = 100, 10

	storageOptions(o, c)
	if err := servingOptions(o, c, l); err != nil {
		return options.CompletedOptions{}, err
	}
	if err := authOptions(o, c); err != nil {
		return options.CompletedOptions{}, err
	}
	done, err := o.Complete(ctx)
	if err != nil {
		return options.CompletedOptions{}, err
	}
	return done, utilerrors.NewAggregate(done.Validate())
}

// unreachableSeconds is how long pods by default stay bound to a node that is unreachable (ADR 0010):
// what gossip calls dead it has already waited for. Upstream's 300 stay for a node that says itself
// that it is not ready.
const unreachableSeconds = "1"

// setTolerations changes the default of an admission plugin, which upstream keeps in the process and
// lets change only as a flag.
func setTolerations() error {
	var flags cliflag.NamedFlagSets
	set := flags.FlagSet("admission")
	defaulttolerationseconds.RegisterFlags(set)
	if err := set.Set("default-unreachable-toleration-seconds", unreachableSeconds); err != nil {
		return fmt.Errorf("set default tolerations: %w", err)
	}
	return nil
}

func storageOptions(o *options.ServerRunOptions, c *Config) {
	o.Etcd.StorageConfig.Transport.ServerList = []string{"unused:"} // demanded by validation
	o.Etcd.SkipHealthEndpoints = true
	o.Etcd.EnableWatchCache = false
	o.Etcd.StorageConfig.CountMetricPollPeriod = 0
	o.Etcd.StorageConfig.DBMetricPollInterval = 0
	o.Etcd.EncryptionProviderConfigFilepath = c.PKI.EncryptionFile()
	o.Etcd.EncryptionProviderConfigAutomaticReload = true
}

func servingOptions(o *options.ServerRunOptions, c *Config, l net.Listener) error {
	cert, key, err := c.PKI.Serving(c.servingHosts()...)
	if err != nil {
		return err
	}
	o.SecureServing.Listener = l
	o.SecureServing.BindPort = l.Addr().(*net.TCPAddr).Port
	o.SecureServing.ServerCert.CertKey.CertFile = cert
	o.SecureServing.ServerCert.CertKey.KeyFile = key
	if c.TLSCertFile != "" {
		o.SecureServing.SNICertKeys = []cliflag.NamedCertKey{{CertFile: c.TLSCertFile, KeyFile: c.TLSKeyFile}}
	}
	if o.ProxyClientCertFile, o.ProxyClientKeyFile, err = c.PKI.FrontProxy(); err != nil {
		return err
	}
	return nil
}

func authOptions(o *options.ServerRunOptions, c *Config) error {
	file := filepath.Join(c.dir(), "authentication.yaml")
	if err := pki.WriteFile(file, []byte(authentication)); err != nil {
		return err
	}
	a := o.Authentication
	a.AuthenticationConfigFile = file
	a.BootstrapToken.Enable = true
	a.ClientCert.ClientCA = c.PKI.CAFile()
	a.RequestHeader.ClientCAFile = c.PKI.FrontProxyCAFile()
	a.RequestHeader.AllowedNames = []string{pki.FrontProxyClient}
	a.RequestHeader.UsernameHeaders = []string{"X-Remote-User"}
	a.RequestHeader.UIDHeaders = []string{"X-Remote-Uid"}
	a.RequestHeader.GroupHeaders = []string{"X-Remote-Group"}
	a.RequestHeader.ExtraHeaderPrefixes = []string{"X-Remote-Extra-"}
	a.ServiceAccounts.Issuers = []string{issuer}
	a.ServiceAccounts.JWKSURI = issuer + "/openid/v1/jwks"
	a.ServiceAccounts.KeyFiles = []string{c.PKI.ServiceAccountKeyFile()}
	o.ServiceAccountSigningKeyFile = c.PKI.ServiceAccountKeyFile()
	o.Authorization.Modes = []string{"Node", "RBAC"}
	return nil
}
