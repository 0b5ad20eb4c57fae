package machine

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// enroll makes the object, or takes over the one that is there.
func (n *Keeper) enroll(ctx context.Context) error {
	nodes := n.cfg.Client.CoreV1().Nodes()
	want := Node(n.describe(), nil)
	got, err := nodes.Create(ctx, want, metav1.CreateOptions{})
	there := apierrors.IsAlreadyExists(err)
	switch {
	case there:
		if got, err = nodes.Get(ctx, want.Name, metav1.GetOptions{}); err != nil {
			return fmt.Errorf("read node: %w", err)
		}
	case err != nil:
		return fmt.Errorf("create node: %w", err)
	}
	switch {
	case n.greeted:
	case !there:
		n.cfg.Event(corev1.EventTypeNormal, "Starting", "Starting kubelet.")
	case n.cfg.Booted:
		n.cfg.Event(corev1.EventTypeWarning, "Rebooted",
			fmt.Sprintf("Node %s has been rebooted, boot id: %s", want.Name, n.cfg.Boot))
	}
	n.told, n.greeted = got, true
	if err := n.relabel(ctx, want); err != nil {
		n.told = nil // the next try begins here
		return err
	}
	return nil
}

// relabel restores labels and pod range of a node that was there before us.
func (n *Keeper) relabel(ctx context.Context, want *corev1.Node) error {
	spec := map[string]any{}
	if n.told.Spec.PodCIDR == "" {
		spec["podCIDR"], spec["podCIDRs"] = want.Spec.PodCIDR, want.Spec.PodCIDRs
	}
	missing := map[string]string{}
	for k, v := range want.Labels {
		if n.told.Labels[k] != v {
			missing[k] = v
		}
	}
	if len(missing)+len(spec) == 0 {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": missing}, "spec": spec})
	if err != nil {
		return fmt.Errorf("encode node: %w", err)
	}
	got, err := n.cfg.Client.CoreV1().Nodes().Patch(ctx, want.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("label node: %w", err)
	}
	n.told = got
	return nil
}
