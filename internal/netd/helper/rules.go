package helper

import (
	"fmt"
	"net/netip"
)

// rules is the whole nftables table, as one transaction that replaces the one before.
//
// Pods keep their source address inside the cluster and take the node's outside of it. The forward
// chain accepts pod traffic; that ends this chain only: a drop in another table still drops (see
// firewall.go for those that are met in practice).
func rules(pods, cluster netip.Prefix) string {
	return fmt.Sprintf(`add table ip %[1]s
delete table ip %[1]s
table ip %[1]s {
	chain postrouting {
		type nat hook postrouting priority srcnat - 10; policy accept;
		ip saddr %[2]s ip daddr != %[3]s oifname != "%[4]s*" masquerade
	}
	chain forward {
		type filter hook forward priority filter - 10; policy accept;
		iifname "%[4]s*" ip saddr != %[2]s drop
		iifname "%[4]s*" accept
		oifname "%[4]s*" accept
	}
}
`, table, pods, cluster, linkPrefix)
}
