package apiserver

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"

	"github.com/podman-swarm/podman-swarm/internal/apiserver/openapi"
	"github.com/podman-swarm/podman-swarm/internal/apistore"
)

const (
	// endpointsInterval is how often the `kubernetes` Service's endpoints are checked.
	endpointsInterval = 10 * time.Second
	// shutdownTimeout bounds how long requests in flight are waited for at the end.
	shutdownTimeout = time.Second
	// renewInterval is how often certificates are looked at while serving.
	renewInterval = 12 * time.Hour
)

// Server is the Kubernetes API of one node.
type Server struct {
	config Config
	chain  *chain
	docs   *openapi.Docs
	serve  func(context.Context) error
	ready  chan struct{}
}

// New builds the server and binds its port; it does not serve yet. It changes three things of the
// whole process: upstream's feature gates, how often it looks for new encryption keys, and where
// klog writes (Config.Log).
func New(ctx context.Context, c Config) (*Server, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	bridgeLogs(c.Log)
	watchKeys()
	l, err := listen(ctx, c.Listen)
	if err != nil {
		return nil, err
	}
	ch, err := buildChain(ctx, &c, l, apistore.New(c.Store).RESTOptions)
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("set up the API server: %s", oneLine(err))
	}
	s := &Server{config: c, chain: ch, ready: make(chan struct{})}
	s.prepare()
	return s, nil
}

func (s *Server) prepare() {
	s.docs = openapi.New(openapi.Config{
		Dir: filepath.Join(s.config.DataDir, "openapi"), Command: s.config.OpenAPICommand, Log: s.config.Log,
		Servers: s.chain.servers(), CRDs: s.chain.extensions.Informers.Apiextensions().V1().CustomResourceDefinitions().Lister(),
	})
	s.docs.Install(s.chain.aggregator.GenericAPIServer.Handler.NonGoRestfulMux)
	installExtra(s.chain.aggregator.GenericAPIServer.Handler.NonGoRestfulMux, s.config.Extra)
	s.chain.trim()
	front := s.chain.aggregator.GenericAPIServer
	front.ShutdownTimeout = shutdownTimeout
	// The aggregator's own PrepareRun only adds its OpenAPI controllers to this.
	s.serve = front.PrepareRun().RunWithContext
}

// Run serves until ctx ends. It must be called exactly once.
func (s *Server) Run(ctx context.Context) error {
	s.chain.loopback.Serve(s.chain.aggregator.GenericAPIServer.Handler)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var beside sync.WaitGroup
	beside.Go(func() { s.watchReady(ctx) })
	beside.Go(func() { s.renew(ctx) })
	beside.Go(func() { s.docs.Run(ctx, s.ready) })
	err := s.serve(ctx)
	cancel()
	beside.Wait()
	if err != nil {
		return fmt.Errorf("serve the API: %w", err)
	}
	return nil
}

// Ready is closed when /readyz first says ok: every hook has run, every informer has synced.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr is the address that the server listens on.
func (s *Server) Addr() string { return s.chain.config.SecureServing.Listener.Addr().String() }

// Loopback returns a client configuration for this process: group system:masters, no network,
// no rate limit. Requests wait until Run is called.
func (s *Server) Loopback() *rest.Config {
	return rest.CopyConfig(s.chain.config.LoopbackClientConfig)
}

// Informers is the factory that the server's own admission and authorization use. Controllers in
// this process share it: each resource is watched and held once. Managed fields are dropped.
func (s *Server) Informers() informers.SharedInformerFactory { return s.chain.informers }

// Handler is the whole server as a handler, with authentication and authorization.
func (s *Server) Handler() http.Handler { return s.chain.aggregator.GenericAPIServer.Handler }

// watchReady asks /readyz until it agrees.
func (s *Server) watchReady(ctx context.Context) {
	client := &http.Client{Transport: s.chain.loopback}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if s.askReady(ctx, client) {
			close(s.ready)
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) askReady(ctx context.Context, client *http.Client) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.chain.config.LoopbackClientConfig.Host+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, resp.Body) // lets the handler end in peace
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// renew keeps certificates fresh in a process that runs for months; upstream reloads the files.
func (s *Server) renew(ctx context.Context) {
	tick := time.NewTicker(renewInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if _, _, err := s.config.PKI.Serving(s.config.servingHosts()...); err != nil {
			s.config.Log.Error("cannot renew the serving certificate", "err", err)
		}
		if _, _, err := s.config.PKI.FrontProxy(); err != nil {
			s.config.Log.Error("cannot renew the front proxy certificate", "err", err)
		}
	}
}
