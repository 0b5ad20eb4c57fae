package helper

const (
	// device carries the gateway address; pods' host-side links share its prefix.
	device     = "psw0"
	linkPrefix = "psw"
	// table is the one nftables table of this package, of family ip.
	table = "podman-swarm"
)
