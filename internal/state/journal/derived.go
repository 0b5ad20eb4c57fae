package journal

import "strings"

// Derived tells keys whose overwritten values are of no use to anybody, so the newer one wins in
// silence. The journal itself is among them.
//
//   - leases are held for seconds and written all the time, by both sides;
//   - node ports are reserved by keys of their own, which say nothing but that.
func Derived(key string) bool {
	for _, prefix := range []string{"/leases/", "/swarm/nodeports/", Prefix} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// Handing says what becomes of an entry when the lineage that wrote it ends in another one.
type Handing int

// What it may be.
const (
	HandOver Handing = iota // the newer one wins
	Record                  // it loses, whatever its age, to what there is, and is journaled
	Withhold                // nobody is told
)
