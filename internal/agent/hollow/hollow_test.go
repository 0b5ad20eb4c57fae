package hollow

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/podman-swarm/podman-swarm/internal/agent/worker"
	"github.com/podman-swarm/podman-swarm/internal/podman"
)

var (
	_ worker.Runtime = Runtime{}
	_ worker.Network = (*Network)(nil)
	_ worker.Volumes = Volumes{}
)

func TestEveryImageExistsAndContainersRun(t *testing.T) {
	r := NewRuntime()
	img, err := r.Image(t.Context(), "registry.example/shop/web:7")
	if err != nil || img.ID == "" {
		t.Fatalf("image = %+v, %v", img, err)
	}
	id, err := r.Create(t.Context(), podman.ContainerSpec{Name: "a", Image: "registry.example/shop/web:7"})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	c, err := r.Inspect(t.Context(), id)
	if err != nil || c.State != podman.Running {
		t.Errorf("container = %+v, %v", c, err)
	}
	if len(r.Calls()) != 0 {
		t.Error("calls are kept, which grows for ever")
	}
}

func TestNetworkGivesOutItsRange(t *testing.T) {
	n := NewNetwork(netip.MustParsePrefix("10.1.2.0/29"))
	seen := map[netip.Addr]bool{}
	for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
		a, err := n.Add(t.Context(), id)
		if err != nil || seen[a.IP] {
			t.Fatalf("%s: %v, %v", id, a, err)
		}
		seen[a.IP] = true
	}
	again, err := n.Add(t.Context(), "a")
	if err != nil || again.IP != netip.MustParseAddr("10.1.2.2") {
		t.Errorf("again: %v, %v", again, err)
	}
	if _, err := n.Add(t.Context(), "g"); err == nil {
		t.Error("an address beyond the range")
	}
	if err := n.Remove(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if a, err := n.Add(t.Context(), "g"); err != nil || a.IP != netip.MustParseAddr("10.1.2.3") {
		t.Errorf("freed address: %v, %v", a, err)
	}
	if list, err := n.List(t.Context()); err != nil || len(list) != 6 {
		t.Errorf("list = %v, %v", list, err)
	}
}

func TestProbesSucceed(t *testing.T) {
	n := NewNetwork(netip.MustParsePrefix("10.1.2.0/24"))
	client := &http.Client{Transport: &http.Transport{DialContext: n.DialContext, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://10.1.2.9:8080/healthz", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %s", resp.Status)
	}
}
