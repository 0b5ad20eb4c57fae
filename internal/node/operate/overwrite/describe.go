package overwrite

import (
	"encoding/json"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/podman-swarm/podman-swarm/internal/hlc"
	"github.com/podman-swarm/podman-swarm/internal/node/stored"
	"github.com/podman-swarm/podman-swarm/internal/state/journal"
	"github.com/podman-swarm/podman-swarm/internal/swarm"
)

// Describe says what a record of the journal is, with both values.
func Describe(c *journal.Conflict) swarm.Conflict {
	out := swarm.Conflict{
		ID: c.ID, Key: c.Key, Time: time.Unix(c.At, 0).UTC(),
		Kept: version(c.Kept), Overwritten: version(c.Lost),
	}
	out.Resource, out.Namespace, out.Name = FromKey(c.Key)
	// Objects know better than keys whether they have a namespace.
	for _, side := range []journal.Side{c.Kept, c.Lost} {
		if obj := stored.Object(side.Value); obj != nil {
			if m, err := meta.Accessor(obj); err == nil {
				out.Namespace, out.Name = m.GetNamespace(), m.GetName()
				break
			}
		}
	}
	return out
}

func version(s journal.Side) swarm.Version {
	v := swarm.Version{Written: hlc.Stamp.Time(s.Stamp).UTC(), Lineage: s.Lineage, Deleted: s.Deleted}
	if s.Deleted {
		return v
	}
	if obj := stored.Object(s.Value); obj != nil {
		if text, err := json.Marshal(obj); err == nil {
			v.Value = &swarm.Value{Object: text}
			return v
		}
	}
	v.Value = &swarm.Value{Raw: s.Value}
	return v
}

// renamed are the resources whose keys begin with something else, upstream's oldest.
func renamed() *strings.Replacer {
	return strings.NewReplacer("/minions/", "/nodes/", "/services/specs/", "/services/", "/services/endpoints/", "/endpoints/")
}

// FromKey reads what a key tells: /RESOURCE/... or, for custom resources, /GROUP/RESOURCE/..., then
// [NAMESPACE/]NAME. Keys of the swarm itself tell nothing.
func FromKey(key string) (resource, namespace, name string) {
	parts := strings.Split(strings.TrimPrefix(renamed().Replace(key), "/"), "/")
	if len(parts) < 2 || strings.HasPrefix(key, "/swarm/") {
		return "", "", ""
	}
	resource, parts = parts[0], parts[1:]
	if strings.Contains(resource, ".") && len(parts) > 1 { // a group
		resource, parts = parts[0]+"."+resource, parts[1:]
	}
	name = parts[len(parts)-1]
	if len(parts) > 1 {
		namespace = parts[len(parts)-2]
	}
	return resource, namespace, name
}
