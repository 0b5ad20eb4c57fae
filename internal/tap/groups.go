package tap

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers/admissionregistration"
	"k8s.io/client-go/informers/apiserverinternal"
	"k8s.io/client-go/informers/apps"
	"k8s.io/client-go/informers/autoscaling"
	"k8s.io/client-go/informers/batch"
	"k8s.io/client-go/informers/certificates"
	"k8s.io/client-go/informers/coordination"
	"k8s.io/client-go/informers/core"
	"k8s.io/client-go/informers/discovery"
	"k8s.io/client-go/informers/events"
	"k8s.io/client-go/informers/extensions"
	"k8s.io/client-go/informers/flowcontrol"
	"k8s.io/client-go/informers/lifecycle"
	"k8s.io/client-go/informers/networking"
	"k8s.io/client-go/informers/node"
	"k8s.io/client-go/informers/policy"
	"k8s.io/client-go/informers/rbac"
	"k8s.io/client-go/informers/resource"
	"k8s.io/client-go/informers/scheduling"
	"k8s.io/client-go/informers/storage"
	"k8s.io/client-go/informers/storagemigration"
)

// The accessors below are the base's, made anew so that they end in the tap's InformerFor. All
// namespaces, no selector: the informers of a shared factory are never narrower.
const everywhere = metav1.NamespaceAll

// Admissionregistration gives the informers of its API group.
func (t *Tap) Admissionregistration() admissionregistration.Interface {
	return admissionregistration.New(t, everywhere, nil)
}

// Internal gives the informers of its API group.
func (t *Tap) Internal() apiserverinternal.Interface {
	return apiserverinternal.New(t, everywhere, nil)
}

// Apps gives the informers of its API group.
func (t *Tap) Apps() apps.Interface { return apps.New(t, everywhere, nil) }

// Autoscaling gives the informers of its API group.
func (t *Tap) Autoscaling() autoscaling.Interface { return autoscaling.New(t, everywhere, nil) }

// Batch gives the informers of its API group.
func (t *Tap) Batch() batch.Interface { return batch.New(t, everywhere, nil) }

// Certificates gives the informers of its API group.
func (t *Tap) Certificates() certificates.Interface { return certificates.New(t, everywhere, nil) }

// Coordination gives the informers of its API group.
func (t *Tap) Coordination() coordination.Interface { return coordination.New(t, everywhere, nil) }

// Core gives the informers of its API group.
func (t *Tap) Core() core.Interface { return core.New(t, everywhere, nil) }

// Discovery gives the informers of its API group.
func (t *Tap) Discovery() discovery.Interface { return discovery.New(t, everywhere, nil) }

// Events gives the informers of its API group.
func (t *Tap) Events() events.Interface { return events.New(t, everywhere, nil) }

// Extensions gives the informers of its API group.
func (t *Tap) Extensions() extensions.Interface { return extensions.New(t, everywhere, nil) }

// Flowcontrol gives the informers of its API group.
func (t *Tap) Flowcontrol() flowcontrol.Interface { return flowcontrol.New(t, everywhere, nil) }

// Lifecycle gives the informers of its API group.
func (t *Tap) Lifecycle() lifecycle.Interface { return lifecycle.New(t, everywhere, nil) }

// Networking gives the informers of its API group.
func (t *Tap) Networking() networking.Interface { return networking.New(t, everywhere, nil) }

// Node gives the informers of its API group.
func (t *Tap) Node() node.Interface { return node.New(t, everywhere, nil) }

// Policy gives the informers of its API group.
func (t *Tap) Policy() policy.Interface { return policy.New(t, everywhere, nil) }

// Rbac gives the informers of its API group.
func (t *Tap) Rbac() rbac.Interface { return rbac.New(t, everywhere, nil) }

// Resource gives the informers of its API group.
func (t *Tap) Resource() resource.Interface { return resource.New(t, everywhere, nil) }

// Scheduling gives the informers of its API group.
func (t *Tap) Scheduling() scheduling.Interface { return scheduling.New(t, everywhere, nil) }

// Storage gives the informers of its API group.
func (t *Tap) Storage() storage.Interface { return storage.New(t, everywhere, nil) }

// Storagemigration gives the informers of its API group.
func (t *Tap) Storagemigration() storagemigration.Interface {
	return storagemigration.New(t, everywhere, nil)
}
