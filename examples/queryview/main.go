// Command queryview answers queries about a state that another process writes.
//
//	queryview --dir DIR|--remote URL [--listen ADDRESS] [--refresh TIME]
//
// A store belongs to one process at a time, the one that writes. But snapshots
// do not change, so anybody may read them beside it: OpenSnapshot takes no lock
// and changes nothing, and the writer does not notice. queryview opens the last
// snapshot in DIR, or at URL, from where it is downloaded, and looks every
// --refresh for another one. So each answer is from one snapshot: it may be a bit
// old, but not half of an update, and no crash of the writer takes it back.
//
//	GET /get?key=K                  the value of a key, or 404
//	GET /scan?prefix=P&limit=N      the first N keys (100) that begin with P, each
//	                                a line {"key": ..., "value": ...} in base64
//	GET /info                       the snapshot: its id, ref, time, metadata, ...
//
// The header Snapshot-Id tells which snapshot an answer is from. Queries with
// wrong parameters get 400.
//
// It prints the address that it listens on, and ends at Ctrl-C when the running
// requests are answered. Who can reach the address can read the state, so by
// default that is this machine only.
//
// Try it beside the example wordcount, which counts the lines that you type:
//
//	wordcount --dir words --every 1
//	queryview --dir words --listen 127.0.0.1:8080
//	curl '127.0.0.1:8080/scan?limit=3'
package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/s3"
)

func main() {
	dir := flag.String("dir", "", "`directory` of the store")
	remote := flag.String("remote", "", "`URL` of the directory or S3 bucket that its snapshots go to")
	listen := flag.String("listen", "127.0.0.1:0", "`address` to listen on; port 0 is any that is free")
	refresh := flag.Duration("refresh", 2*time.Second, "`time` after which to look for another snapshot")
	flag.Parse()
	if (*dir == "") == (*remote == "") || *refresh <= 0 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "usage: queryview --dir DIR|--remote URL [--listen ADDRESS] [--refresh TIME]")
		flag.PrintDefaults()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait
	if err := run(ctx, *dir, *remote, *listen, *refresh); err != nil {
		fmt.Fprintln(os.Stderr, "queryview:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir, remote, listen string, refresh time.Duration) error {
	s := server{dir: dir}
	if remote != "" {
		var err error
		if s.bucket, err = s3.Open(remote); err != nil {
			return err
		}
	}
	if err := s.refresh(ctx); err != nil {
		return err
	}
	defer s.replace(nil)
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Printf("http://%s\n", l.Addr())
	h := http.Server{Handler: s.handler(), ReadTimeout: time.Minute, WriteTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- h.Serve(l) }()
	for {
		select {
		case <-time.After(refresh):
			if err := s.refresh(ctx); err != nil {
				log.Print("queryview: no newer snapshot: ", err) // and go on with the one that is open
			}
		case <-ctx.Done():
			return h.Shutdown(context.Background()) // the timeouts bound it
		case err := <-served:
			return err
		}
	}
}

// A server answers from the last snapshot in a bucket, or else in a directory.
type server struct {
	dir    string
	bucket bucket.Bucket

	mu   sync.Mutex
	view *view // changed by replace only, with mu held
}

// A view is closed when nobody uses it any more.
type view struct {
	*kvstore.View
	users sync.WaitGroup
}

// refresh opens the last snapshot if that is another one than before. It looks
// at the list first, as opening may mean a download.
func (s *server) refresh(ctx context.Context) (err error) {
	var infos []kvstore.SnapshotInfo
	if s.bucket != nil {
		infos, err = kvstore.RemoteSnapshots(ctx, s.bucket)
	} else {
		infos, err = kvstore.LocalSnapshots(ctx, s.dir)
	}
	if err != nil {
		return err
	}
	infos = slices.DeleteFunc(infos, func(i kvstore.SnapshotInfo) bool { return i.Abandoned })
	if n := len(infos); n > 0 && s.view != nil && infos[n-1].Ref == s.view.Info().Ref {
		return nil
	}
	v := new(view)
	if s.bucket != nil {
		v.View, err = kvstore.OpenRemoteSnapshot(ctx, s.bucket, kvstore.LastSnapshot, nil)
	} else {
		v.View, err = kvstore.OpenSnapshot(ctx, s.dir, kvstore.LastSnapshot)
	}
	if err != nil {
		return err
	}
	return s.replace(v)
}

// replace makes a view the one that new requests use, and closes the one before
// when its last request has ended.
func (s *server) replace(v *view) error {
	s.mu.Lock()
	old := s.view
	s.view = v
	s.mu.Unlock()
	if old == nil {
		return nil
	}
	old.users.Wait()
	return old.Close()
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /get", s.answer(get))
	mux.Handle("GET /scan", s.answer(scan))
	mux.Handle("GET /info", s.answer(info))
	return mux
}

// answer lets a query use the view that is the last one when it begins.
func (s *server) answer(query func(http.ResponseWriter, *http.Request, *kvstore.View) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		v := s.view
		v.users.Add(1)
		s.mu.Unlock()
		defer v.users.Done()
		w.Header().Set("Snapshot-Id", strconv.FormatUint(v.Info().ID, 10))
		switch err := query(w, r, v.View); {
		case errors.Is(err, kvstore.ErrNotFound):
			http.Error(w, err.Error(), http.StatusNotFound)
		case errors.Is(err, kvstore.ErrInvalidKey):
			http.Error(w, err.Error(), http.StatusBadRequest)
		case err != nil:
			log.Printf("queryview: %s: %v", r.URL.Path, err)
			panic(http.ErrAbortHandler) // what was sent must not look whole
		}
	}
}

func get(w http.ResponseWriter, r *http.Request, v *kvstore.View) error {
	value, err := v.Get(nil, []byte(r.FormValue("key")))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, err = w.Write(value)
	return err
}

func scan(w http.ResponseWriter, r *http.Request, v *kvstore.View) error {
	limit, err := strconv.ParseUint(cmp.Or(r.FormValue("limit"), "100"), 10, 64)
	if err != nil || limit == 0 {
		http.Error(w, "limit must be a number from 1 on", http.StatusBadRequest)
		return nil
	}
	w.Header().Set("Content-Type", "application/jsonl")
	out := json.NewEncoder(w)
	it := v.Scan(kvstore.Prefix([]byte(r.FormValue("prefix"))))
	for key, value := range it.All() {
		text := base64.StdEncoding.EncodeToString
		if err := out.Encode(map[string]string{"key": text(key), "value": text(value)}); err != nil {
			return err
		}
		if limit--; limit == 0 {
			break
		}
	}
	return it.Err()
}

func info(w http.ResponseWriter, _ *http.Request, v *kvstore.View) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v.Info())
}
