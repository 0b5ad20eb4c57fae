package podspec

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ServiceEnv are the variables of the services a pod sees at its start: those of its own namespace when links is true,
// and always the `kubernetes` service, by which in-cluster clients find the API.
func ServiceEnv(namespace string, links bool, services []*corev1.Service) map[string]string {
	env := map[string]string{}
	var master *corev1.Service
	for _, s := range services {
		switch {
		case s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone || len(s.Spec.Ports) == 0:
		case s.Namespace == corev1.NamespaceDefault && s.Name == "kubernetes":
			master = s
		case links && s.Namespace == namespace:
			serviceVars(env, s)
		}
	}
	// A service of the same name in the pod's namespace is the nearer one.
	if master != nil && (namespace == corev1.NamespaceDefault || env["KUBERNETES_SERVICE_HOST"] == "") {
		serviceVars(env, master)
	}
	return env
}

func serviceVars(env map[string]string, s *corev1.Service) {
	prefix := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
	ip := s.Spec.ClusterIP
	env[prefix+"_SERVICE_HOST"] = ip
	env[prefix+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
	for i, p := range s.Spec.Ports {
		if p.Name != "" {
			name := strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_"))
			env[prefix+"_SERVICE_PORT_"+name] = strconv.Itoa(int(p.Port))
		}
		proto := "TCP"
		if p.Protocol != "" {
			proto = string(p.Protocol)
		}
		port := strconv.Itoa(int(p.Port))
		url := fmt.Sprintf("%s://%s", strings.ToLower(proto), net.JoinHostPort(ip, port))
		if i == 0 {
			env[prefix+"_PORT"] = url
		}
		one := fmt.Sprintf("%s_PORT_%s_%s", prefix, port, strings.ToUpper(proto))
		env[one] = url
		env[one+"_PROTO"] = strings.ToLower(proto)
		env[one+"_PORT"] = port
		env[one+"_ADDR"] = ip
	}
}
