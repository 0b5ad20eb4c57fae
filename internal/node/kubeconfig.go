package node

import (
	"context"
	"time"

	"github.com/podman-swarm/podman-swarm/internal/node/given"
	"github.com/podman-swarm/podman-swarm/internal/pki"
)

// kubeconfigLife is when the administrator's kubeconfig is written anew at the latest: its
// certificate is good for a year.
const kubeconfigLife = 30 * 24 * time.Hour

func (h *host) writeKubeconfig(keys *pki.Authority) error {
	others, err := given.CAs(h.cfg.TLSCA)
	if err != nil {
		return err
	}
	return keys.WriteKubeconfig(h.dir.File("admin.kubeconfig"), h.localURL(), others, "admin", "system:masters")
}

// keepKubeconfig writes the administrator's kubeconfig anew when the swarm's keys change, and
// before its certificate expires.
func (h *host) keepKubeconfig(ctx context.Context, keys *pki.Authority) error {
	for {
		changed := keys.Changed()
		timer := time.NewTimer(kubeconfigLife)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if err := ctx.Err(); err != nil {
			return withoutCanceled(err)
		}
		if err := h.writeKubeconfig(keys); err != nil {
			h.log.Warn("write admin kubeconfig", "err", err)
		}
	}
}
