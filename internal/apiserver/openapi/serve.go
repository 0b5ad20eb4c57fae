package openapi

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/munnerz/goautoneg"
	listers "k8s.io/apiextensions-apiserver/pkg/client/listers/apiextensions/v1"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
)

const (
	mediaV2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	mediaV3 = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
)

// Docs serves OpenAPI v2 and v3: built-in APIs from files that a child process wrote, custom
// resources built when asked for. It holds no document in memory.
type Docs struct {
	id     string // of this binary
	log    *slog.Logger
	static map[string]bool // group versions such as "apis/apps/v1"
	crds   crdSource
	builds *builds
}

// Config says what a Docs serves.
type Config struct {
	// Dir is where the documents are kept, one directory per binary.
	Dir string
	// Command is the command line of a process that calls Write; the directory is appended.
	Command []string
	Log     *slog.Logger
	// Servers are the chain whose routes are documented.
	Servers []*genericapiserver.GenericAPIServer
	CRDs    listers.CustomResourceDefinitionLister
}

// New returns a Docs; documents that are missing wait for Run.
func New(c Config) *Docs {
	id := binaryID()
	d := &Docs{
		id: id, log: c.Log, static: map[string]bool{},
		crds:   crdSource{c.CRDs},
		builds: newBuilds(filepath.Join(c.Dir, id), c.Command, c.Log),
	}
	for _, s := range c.Servers {
		for _, ws := range s.Handler.GoRestfulContainer.RegisteredWebServices() {
			d.static[strings.TrimPrefix(ws.RootPath(), "/")] = true
		}
	}
	return d
}

// Run starts a child process whenever documents are wanted, until ctx ends. When idle is closed it
// has missing ones written without being asked, at low priority.
func (d *Docs) Run(ctx context.Context, idle <-chan struct{}) { d.builds.run(ctx, idle) }

// Install adds the paths below /openapi to m.
func (d *Docs) Install(m *mux.PathRecorderMux) {
	m.HandleFunc("/openapi/v2", d.serveV2)
	m.HandleFunc("/openapi/v3", d.serveIndex)
	m.HandlePrefix("/openapi/v3/", http.HandlerFunc(d.serveV3))
}

// serveIndex lists the v3 documents. It never needs the files: upstream's admission asks for it
// every five seconds, and that must not start a build.
func (d *Docs) serveIndex(w http.ResponseWriter, r *http.Request) {
	type entry struct {
		ServerRelativeURL string `json:"serverRelativeURL"`
	}
	paths := map[string]entry{}
	add := func(gv, hash string) {
		paths[gv] = entry{"/openapi/v3/" + gv + "?hash=" + url.QueryEscape(hash)}
	}
	for gv := range d.static {
		add(gv, d.hash(gv))
	}
	for gv, crds := range d.crds.groups() {
		add(gv, crds.hash())
	}
	data, err := json.Marshal(map[string]any{"paths": paths})
	if err != nil {
		d.fail(w, err)
		return
	}
	sum := sha256.Sum256(data)
	if notModified(w, r, hex.EncodeToString(sum[:])) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data) // the client has gone
}

func (d *Docs) serveV3(w http.ResponseWriter, r *http.Request) {
	gv := strings.TrimPrefix(r.URL.Path, "/openapi/v3/")
	crds, custom := d.crds.groups()[gv]
	if !custom && !d.static[gv] {
		http.NotFound(w, r)
		return
	}
	pb, ok := negotiate(w, r, "v3")
	if !ok {
		return
	}
	hash := d.hash(gv)
	if custom {
		hash = crds.hash()
	}
	if asked := r.URL.Query().Get("hash"); asked == hash {
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	} else if asked != "" {
		http.Redirect(w, r, r.URL.Path+"?hash="+url.QueryEscape(hash), http.StatusMovedPermanently)
		return
	}
	if notModified(w, r, hash) {
		return
	}
	contentType, ext := "application/json", ".json.gz"
	if pb {
		contentType, ext = mediaV3, ".pb.gz"
	}
	if custom {
		data, err := crds.v3(pb)
		d.send(w, r, contentType, err, section{plain: data})
		return
	}
	dir, err := d.builds.documents(r.Context(), "v3")
	d.send(w, r, contentType, err, section{file: filepath.Join(dir, fileOf(gv)+ext)})
}

func (d *Docs) serveV2(w http.ResponseWriter, r *http.Request) {
	pb, ok := negotiate(w, r, "v2")
	if !ok {
		return
	}
	all := d.crds.established()
	if notModified(w, r, d.hash(all.hash())) {
		return
	}
	dir, err := d.builds.documents(r.Context(), "v2")
	if err != nil {
		d.fail(w, err)
		return
	}
	extra, err := all.v2(dir)
	if err != nil {
		d.fail(w, err)
		return
	}
	if pb {
		data, err := extra.protobuf()
		d.send(w, r, mediaV2, err, section{file: filepath.Join(dir, "pb.gz")}, section{plain: data})
		return
	}
	var sections []section
	for i := range pieceKeys() {
		sections = append(sections, section{file: filepath.Join(dir, pieceFile(i))}, section{plain: extra.members[i]})
	}
	sections = append(sections, section{file: filepath.Join(dir, pieceFile(len(pieceKeys())))})
	d.send(w, r, "application/json", nil, sections...)
}

// hash changes with this binary: built-in documents depend on nothing else.
func (d *Docs) hash(of string) string {
	sum := sha256.Sum256([]byte(d.id + "/" + of))
	return strings.ToUpper(hex.EncodeToString(sum[:16]))
}

func (d *Docs) fail(w http.ResponseWriter, err error) {
	d.log.Error("cannot serve the OpenAPI documents", "err", err)
	http.Error(w, "OpenAPI documents are not available: "+strings.Join(strings.Fields(err.Error()), " "), http.StatusInternalServerError)
}

// section is a part of a response body: a gzipped file or plain bytes.
type section struct {
	file  string
	plain []byte
}

// send streams the sections. Gzip streams may be joined, so files go out as they are to a client
// that takes gzip.
func (d *Docs) send(w http.ResponseWriter, r *http.Request, contentType string, err error, sections ...section) {
	if err != nil {
		d.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Add("Vary", "Accept-Encoding")
	zip := strings.Contains(r.Header.Get("Accept-Encoding"), "gzip")
	if zip {
		w.Header().Set("Content-Encoding", "gzip")
	}
	for _, s := range sections {
		if err := s.copy(w, zip); err != nil {
			d.log.Debug("OpenAPI response cut off", "err", err)
			return
		}
	}
}

func (s section) copy(w io.Writer, zip bool) error {
	if s.file == "" {
		return s.copyPlain(w, zip)
	}
	f, err := os.Open(s.file) // #nosec G304 -- our own directory
	if err != nil {
		return err
	}
	defer f.Close()
	var src io.Reader = f
	if !zip {
		if src, err = gzip.NewReader(f); err != nil {
			return fmt.Errorf("read %s: %w", s.file, err)
		}
	}
	_, err = io.Copy(w, src)
	return err
}

func (s section) copyPlain(w io.Writer, zip bool) error {
	if len(s.plain) == 0 {
		return nil
	}
	if !zip {
		_, err := w.Write(s.plain)
		return err
	}
	z := gzip.NewWriter(w)
	_, err := z.Write(s.plain)
	return errors.Join(err, z.Close())
}

// notModified answers a client that already has the document.
func notModified(w http.ResponseWriter, r *http.Request, etag string) bool {
	tag := `"` + etag + `"`
	w.Header().Set("Etag", tag)
	if !strings.Contains(r.Header.Get("If-None-Match"), tag) {
		return false
	}
	w.WriteHeader(http.StatusNotModified)
	return true
}

// negotiate says whether the client wants protobuf (else JSON), or answers 406.
func negotiate(w http.ResponseWriter, r *http.Request, version string) (protobuf, ok bool) {
	w.Header().Add("Vary", "Accept")
	accept := r.Header.Get("Accept")
	if accept == "" {
		accept = "*/*"
	}
	for _, c := range goautoneg.ParseAccept(accept) {
		if c.Type != "application" && c.Type != "*" {
			continue
		}
		switch c.SubType {
		case "json", "*":
			return false, true
		case "com.github.proto-openapi.spec." + version + "@v1.0+protobuf",
			"com.github.proto-openapi.spec." + version + ".v1.0+protobuf":
			return true, true
		}
	}
	w.WriteHeader(http.StatusNotAcceptable)
	return false, false
}
