package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	good := Setup{PodCIDR: netip.MustParsePrefix("10.244.7.0/24"), ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"), RunDir: "/run/x", MTU: 1420}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Setup){
		"not an IPv4 range":     func(s *Setup) { s.PodCIDR = netip.MustParsePrefix("fd00::/64") },
		"its size must be":      func(s *Setup) { s.PodCIDR = netip.MustParsePrefix("10.244.7.0/30") },
		"outside the cluster's": func(s *Setup) { s.PodCIDR = netip.MustParsePrefix("10.1.0.0/24") },
		"not an absolute path":  func(s *Setup) { s.RunDir = "run" },
		"longer than 200 bytes": func(s *Setup) { s.RunDir = "/" + strings.Repeat("x", 200) },
		"is not in 576..65535":  func(s *Setup) { s.MTU = 100 },
	} {
		bad := good
		change(&bad)
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want ...%s...", err, want)
		}
	}
}

func TestCheckID(t *testing.T) {
	for id, ok := range map[string]bool{
		"0b0e5c5e-7e37-4f2c-8a2d-000000000001": true, "a": true, "": false, "_net": false, "..": false, ".": false,
		"a/b": false, "a b": false, strings.Repeat("a", 63): true, strings.Repeat("a", 64): false, "a\x00": false,
	} {
		if err := CheckID(id); (err == nil) != ok {
			t.Errorf("CheckID(%q) = %v", id, err)
		}
	}
}

func TestErrorsTravel(t *testing.T) {
	for _, want := range []error{ErrExhausted, ErrNoPod} {
		b, err := json.Marshal(Failure(fmt.Errorf("do it: %w here", want)))
		if err != nil {
			t.Fatal(err)
		}
		r, err := DecodeReply(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.AsError(); !errors.Is(got, want) || got.Error() != "do it: "+want.Error()+" here" {
			t.Errorf("%v became %v", want, got)
		}
	}
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add([]byte(`{"seq":1,"op":"add","id":"pod-a"}`))
	f.Add([]byte(`{"seq":2,"op":"socket","network":"tcp4"}`))
	f.Add([]byte(`{"seq":3,"op":"start","setup":{"podCIDR":"10.244.7.0/24","clusterCIDR":"10.244.0.0/16","runDir":"/x","mtu":1420}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRequest(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeRequest(again)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("%+v became %+v: %v", r, got, err)
		}
		if r.Op == OpAdd && filepath.Dir((Setup{RunDir: "/x"}).Path(r.ID)) != "/x/netns" {
			t.Fatalf("id %q leaves the directory", r.ID)
		}
	})
}

func FuzzDecodeReply(f *testing.F) {
	f.Add([]byte(`{"seq":1,"pods":[{"id":"pod-a","ip":"10.244.7.2"}],"more":true}`))
	f.Add([]byte(`{"log":{"level":"WARN","text":"x"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeReply(b)
		if err != nil {
			return
		}
		for _, p := range r.Pods {
			if !p.IP.Is4() || CheckID(p.ID) != nil {
				t.Fatalf("accepted pod %+v", p)
			}
		}
	})
}

func TestFind(t *testing.T) {
	if _, err := Find("no-such-program-anywhere"); !errors.Is(err, ErrNotFound) {
		t.Errorf("find: %v", err)
	}
	if path, err := Find("sh"); err != nil || !filepath.IsAbs(path) {
		t.Errorf("Find(sh) = %s, %v", path, err)
	}
}
