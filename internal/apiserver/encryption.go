package apiserver

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	encryptioncontroller "k8s.io/apiserver/pkg/server/options/encryptionconfig/controller"
	"k8s.io/client-go/kubernetes"

	"github.com/podman-swarm/podman-swarm/internal/state"
)

const (
	// reloadInterval is how often upstream looks whether the encryption keys have changed.
	reloadInterval = 2 * time.Second
	// secretsPrefix is where the store keeps Secrets.
	secretsPrefix = "/secrets/"
	// rewritePage is how many Secrets are read at a time.
	rewritePage = 200
)

// watchKeys makes a rotation take seconds: upstream's default is a minute.
func watchKeys() { encryptioncontroller.EncryptionConfigFileChangePollDuration = reloadInterval }

// RotateEncryptionKey makes a new key for Secrets at rest, waits until this server encrypts with
// it, rewrites every Secret, and forgets the old keys. Interrupted at any point nothing is lost:
// the old keys stay until everything is rewritten, and another call carries on with a newer key.
//
// The keys are a file of this node. Where several nodes serve one store, all of them must have
// the new key before one of them writes with it.
func (s *Server) RotateEncryptionKey(ctx context.Context) error {
	name, err := s.config.PKI.AddEncryptionKey()
	if err != nil {
		return fmt.Errorf("rotate the encryption key: %w", err)
	}
	client, err := kubernetes.NewForConfig(s.Loopback())
	if err != nil {
		return fmt.Errorf("rotate the encryption key: %w", err)
	}
	prefix := "k8s:enc:secretbox:v1:" + name + ":"
	for {
		if err := rewriteSecrets(ctx, client); err != nil {
			return fmt.Errorf("rewrite Secrets under %s: %w", name, err)
		}
		if s.allUnder(prefix) {
			break
		}
		select { // the server has not noticed the new key yet
		case <-time.After(reloadInterval / 4):
		case <-ctx.Done():
			return fmt.Errorf("rewrite Secrets under %s: %w", name, context.Cause(ctx))
		}
	}
	return s.config.PKI.DropEncryptionKeys()
}

// rewriteSecrets updates every Secret with itself. Such an update is only stored when the
// stored form is under an old key.
func rewriteSecrets(ctx context.Context, client kubernetes.Interface) error {
	page := metav1.ListOptions{Limit: rewritePage}
	for {
		list, err := client.CoreV1().Secrets(metav1.NamespaceAll).List(ctx, page)
		if err != nil {
			return err
		}
		for i := range list.Items {
			_, err := client.CoreV1().Secrets(list.Items[i].Namespace).Update(ctx, &list.Items[i], metav1.UpdateOptions{})
			// Somebody else changed it meanwhile: the check afterwards tells whether that was enough.
			if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				return fmt.Errorf("%s/%s: %w", list.Items[i].Namespace, list.Items[i].Name, err)
			}
		}
		if page.Continue = list.Continue; page.Continue == "" {
			return nil
		}
	}
}

// allUnder says whether every stored Secret begins with prefix, which names a key.
func (s *Server) allUnder(prefix string) bool {
	all := true
	end := strings.TrimSuffix(secretsPrefix, "/") + "0" // "0" follows "/"
	s.config.Store.View().Ascend(secretsPrefix, end, func(e *state.Entry) bool {
		all = strings.HasPrefix(string(e.Value[:min(len(prefix), len(e.Value))]), prefix)
		return all
	})
	return all
}
