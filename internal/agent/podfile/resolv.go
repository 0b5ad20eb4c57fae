package podfile

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The resolver library's limits, as upstream enforces them.
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchChars = 2048
	maxDomain      = 253
)

// DNS is what the node offers its pods.
type DNS struct {
	// NodeFile is the node's own resolv.conf.
	NodeFile []byte
	// ClusterServers answer for the cluster's names; none yet: then ClusterFirst asks the node's servers.
	ClusterServers []string
	ClusterDomain  string
}

type resolver struct{ servers, searches, options []string }

// Resolv returns /etc/resolv.conf of a pod by its dnsPolicy and dnsConfig, and a remark for an
// event when the resolver library's limits cut something off.
func Resolv(pod *corev1.Pod, dns DNS) (file []byte, remark string) {
	r := parse(string(dns.NodeFile))
	cluster := pod.Spec.DNSPolicy == corev1.DNSClusterFirstWithHostNet ||
		pod.Spec.DNSPolicy != corev1.DNSDefault && pod.Spec.DNSPolicy != corev1.DNSNone && !pod.Spec.HostNetwork
	switch {
	case pod.Spec.DNSPolicy == corev1.DNSNone:
		r = resolver{}
	case cluster:
		if len(dns.ClusterServers) > 0 {
			r.servers = slices.Clone(dns.ClusterServers)
			r.options = []string{"ndots:5"}
		}
		own := []string{pod.Namespace + ".svc." + dns.ClusterDomain, "svc." + dns.ClusterDomain, dns.ClusterDomain}
		r.searches = unique(append(own, r.searches...))
	}
	if c := pod.Spec.DNSConfig; c != nil {
		r.servers = unique(append(r.servers, c.Nameservers...))
		r.searches = unique(append(r.searches, c.Searches...))
		for _, o := range c.Options {
			opt := o.Name
			if o.Value != nil && *o.Value != "" {
				opt += ":" + *o.Value
			}
			r.options = setOption(r.options, opt)
		}
	}
	remark = r.limit()
	return r.file(), remark
}

func (r *resolver) limit() string {
	if len(r.servers) > maxNameservers {
		r.servers = r.servers[:maxNameservers]
		return "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: " +
			strings.Join(r.servers, " ")
	}
	before := len(r.searches)
	r.searches = slices.DeleteFunc(r.searches, func(s string) bool { return len(s) > maxDomain })
	r.searches = r.searches[:min(len(r.searches), maxSearches)]
	for len(strings.Join(r.searches, " ")) > maxSearchChars {
		r.searches = r.searches[:len(r.searches)-1]
	}
	if len(r.searches) < before {
		return "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: " +
			strings.Join(r.searches, " ")
	}
	return ""
}

func (r *resolver) file() []byte {
	var b strings.Builder
	if len(r.searches) > 0 {
		b.WriteString("search " + strings.Join(r.searches, " ") + "\n")
	}
	for _, s := range r.servers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(r.options) > 0 {
		b.WriteString("options " + strings.Join(r.options, " ") + "\n")
	}
	return []byte(b.String())
}

func parse(file string) resolver {
	var r resolver
	for line := range strings.Lines(file) {
		f := strings.Fields(line)
		if len(f) < 2 || strings.HasPrefix(f[0], "#") || strings.HasPrefix(f[0], ";") {
			continue
		}
		switch f[0] {
		case "nameserver":
			r.servers = append(r.servers, f[1])
		case "search":
			r.searches = nil
			for _, s := range f[1:] {
				if s != "." {
					r.searches = append(r.searches, strings.TrimSuffix(s, "."))
				}
			}
		case "options":
			for _, o := range f[1:] {
				r.options = setOption(r.options, o)
			}
		}
	}
	return r
}

// setOption replaces an option of the same name, or appends.
func setOption(all []string, opt string) []string {
	name, _, _ := strings.Cut(opt, ":")
	for i, o := range all {
		if n, _, _ := strings.Cut(o, ":"); n == name {
			all = slices.Clone(all)
			all[i] = opt
			return all
		}
	}
	return append(all, opt)
}

func unique(all []string) []string {
	var out []string
	for _, s := range all {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
