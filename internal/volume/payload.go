package volume

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

// file is one file of a volume.
type file struct {
	data []byte
	mode int32
	user *int64 // owner as the container sees it; nil: root
}

// defaultMode is what the API server's defaulting writes into volumes that say none.
const defaultMode int32 = 0o644

// tokenMode is that of a token that belongs to one user, or to fsGroup (which adds the group's bit).
const tokenMode int32 = 0o600

// payload collects the files of a volume. Errors are a kubelet's.
func (v *Volumes) payload(ctx context.Context, pod *corev1.Pod, vol *corev1.Volume) (map[string]file, error) {
	switch {
	case vol.ConfigMap != nil:
		s := vol.ConfigMap
		return v.configMapFiles(ctx, pod.Namespace, s.Name, keys{s.Items, s.DefaultMode, s.Optional})
	case vol.Secret != nil:
		s := vol.Secret
		return v.secretFiles(ctx, pod.Namespace, s.SecretName, keys{s.Items, s.DefaultMode, s.Optional})
	case vol.DownwardAPI != nil:
		return v.downwardFiles(pod, vol.DownwardAPI.Items, vol.DownwardAPI.DefaultMode)
	default:
		return v.projectedFiles(ctx, pod, vol.Projected)
	}
}

// keys choose files of a ConfigMap or Secret.
type keys struct {
	items    []corev1.KeyToPath
	mode     *int32
	optional *bool
}

func (k keys) isOptional() bool { return k.optional != nil && *k.optional }

func (v *Volumes) configMapFiles(ctx context.Context, namespace, name string, k keys) (map[string]file, error) {
	cm, err := v.cfg.Sources.ConfigMap(ctx, namespace, name)
	if err != nil {
		if !k.isOptional() || !apierrors.IsNotFound(err) {
			return nil, err
		}
		cm = &corev1.ConfigMap{}
	}
	data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for key, s := range cm.Data {
		data[key] = []byte(s)
	}
	for key, b := range cm.BinaryData {
		data[key] = b
	}
	return k.choose(data, "configmap references non-existent config key: %s")
}

func (v *Volumes) secretFiles(ctx context.Context, namespace, name string, k keys) (map[string]file, error) {
	secret, err := v.cfg.Sources.Secret(ctx, namespace, name)
	if err != nil {
		if !k.isOptional() || !apierrors.IsNotFound(err) {
			return nil, err
		}
		secret = &corev1.Secret{}
	}
	return k.choose(secret.Data, "references non-existent secret key: %s")
}

func (k keys) choose(data map[string][]byte, missing string) (map[string]file, error) {
	files := map[string]file{}
	mode := modeOr(k.mode, defaultMode)
	if len(k.items) == 0 {
		for key, b := range data {
			files[key] = file{data: b, mode: mode}
		}
		return files, nil
	}
	for _, item := range k.items {
		b, ok := data[item.Key]
		if !ok {
			if k.isOptional() {
				continue
			}
			return nil, fmt.Errorf(missing, item.Key)
		}
		files[item.Path] = file{data: b, mode: modeOr(item.Mode, mode)}
	}
	return files, nil
}

func modeOr(mode *int32, or int32) int32 {
	if mode != nil {
		return *mode
	}
	return or
}

// projectedFiles merges all sources; a later one wins. All errors are told at once.
func (v *Volumes) projectedFiles(ctx context.Context, pod *corev1.Pod, p *corev1.ProjectedVolumeSource,
) (map[string]file, error) {
	files := map[string]file{}
	var errs []error
	for i := range p.Sources {
		some, err := v.projection(ctx, pod, p, &p.Sources[i])
		if err != nil {
			errs = append(errs, err)
		}
		for path, f := range some {
			files[path] = f
		}
	}
	return files, utilerrors.NewAggregate(errs)
}

func (v *Volumes) projection(ctx context.Context, pod *corev1.Pod, p *corev1.ProjectedVolumeSource,
	s *corev1.VolumeProjection,
) (map[string]file, error) {
	switch {
	case s.Secret != nil:
		return v.secretFiles(ctx, pod.Namespace, s.Secret.Name, keys{s.Secret.Items, p.DefaultMode, s.Secret.Optional})
	case s.ConfigMap != nil:
		return v.configMapFiles(ctx, pod.Namespace, s.ConfigMap.Name,
			keys{s.ConfigMap.Items, p.DefaultMode, s.ConfigMap.Optional})
	case s.DownwardAPI != nil:
		return v.downwardFiles(pod, s.DownwardAPI.Items, p.DefaultMode)
	case s.ServiceAccountToken != nil:
		return v.tokenFile(ctx, pod, p, s.ServiceAccountToken)
	case s.ClusterTrustBundle != nil:
		return nil, errors.New("projected volume source \"clusterTrustBundle\" is not supported by Podman Swarm")
	case s.PodCertificate != nil:
		return nil, errors.New("projected volume source \"podCertificate\" is not supported by Podman Swarm")
	default:
		return nil, nil
	}
}

func (v *Volumes) tokenFile(ctx context.Context, pod *corev1.Pod, p *corev1.ProjectedVolumeSource,
	s *corev1.ServiceAccountTokenProjection,
) (map[string]file, error) {
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: s.ExpirationSeconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID,
		},
	}}
	if s.Audience != "" {
		req.Spec.Audiences = []string{s.Audience}
	}
	token, err := v.tokens.get(ctx, pod.Namespace, pod.Spec.ServiceAccountName, req)
	if err != nil {
		return nil, err
	}
	f := file{data: []byte(token), mode: modeOr(p.DefaultMode, defaultMode), user: tokenUser(pod)}
	if f.user != nil || fsGroup(pod) != nil {
		f.mode = tokenMode
	}
	return map[string]file{filepath.Clean(s.Path): f}, nil
}
