package podfile

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	managedHeader = "# Kubernetes-managed hosts file.\n"
	hostHeader    = "# Kubernetes-managed hosts file (host network).\n"
	// maxHostname is the longest name the kernel takes.
	maxHostname = 63
)

// Name returns the host name of a pod and its domain, "" without a subdomain. Its containers' own
// host name is the first, or both with setHostnameAsFQDN (see UTSName).
func Name(pod *corev1.Pod, clusterDomain string) (host, domain string) {
	if pod.Spec.HostnameOverride != nil {
		return truncate(*pod.Spec.HostnameOverride), ""
	}
	host = pod.Name
	if pod.Spec.Hostname != "" {
		host = pod.Spec.Hostname
	}
	if pod.Spec.Subdomain != "" {
		domain = fmt.Sprintf("%s.%s.svc.%s", pod.Spec.Subdomain, pod.Namespace, clusterDomain)
	}
	return truncate(host), domain
}

// UTSName returns what `hostname` says in the pod's containers.
func UTSName(pod *corev1.Pod, clusterDomain string) (string, error) {
	host, domain := Name(pod, clusterDomain)
	if domain == "" || pod.Spec.SetHostnameAsFQDN == nil || !*pod.Spec.SetHostnameAsFQDN {
		return host, nil
	}
	if fqdn := host + "." + domain; len(fqdn) <= maxHostname+1 {
		return fqdn, nil
	}
	return "", fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long "+
		"(%d characters is the max, %d characters requested)", host+"."+domain, maxHostname+1, len(host)+1+len(domain))
}

func truncate(host string) string {
	if len(host) <= maxHostname {
		return host
	}
	return strings.TrimRight(host[:maxHostname], "-.")
}

// Hosts returns /etc/hosts of a pod: its own, or with hostNetwork the node's (given as nodeFile),
// each with the pod's hostAliases.
func Hosts(pod *corev1.Pod, ips []string, clusterDomain string, nodeFile []byte) []byte {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		b.WriteString(hostHeader)
		b.Write(nodeFile)
	} else {
		b.WriteString(managedHeader)
		b.WriteString("127.0.0.1\tlocalhost\n")
		b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
		b.WriteString("fe00::0\tip6-localnet\n")
		b.WriteString("fe00::0\tip6-mcastprefix\n")
		b.WriteString("fe00::1\tip6-allnodes\n")
		b.WriteString("fe00::2\tip6-allrouters\n")
		host, domain := Name(pod, clusterDomain)
		for _, ip := range ips {
			if domain != "" {
				fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, host, domain, host)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, host)
			}
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}
	return []byte(b.String())
}
