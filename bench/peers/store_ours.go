package main

import (
	"context"
	"fmt"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine"
)

// ourKind is one of the engines of this project, through the public interface
// and with the default settings of the engine.
func ourKind(e kvstore.Engine) kind {
	k := kind{
		name:  e.String(),
		class: synced,
		open: func(dir string, s settings) (store, error) {
			o := kvstore.Options{Engine: e, MemoryBytes: s.Memory}
			remote, err := openRemote(dir, s.Remote)
			if err != nil {
				return nil, err
			}
			if remote != nil {
				o.Remote = remote
			}
			db, err := kvstore.Open(dir, o)
			if err != nil {
				return nil, err
			}
			if remote != nil {
				return uploadingOurs{ours{db}, remote}, nil
			}
			return ours{db}, nil
		},
		snapshots: "Snapshot and Wait; the cut is the call of Snapshot",
		uploads:   "Options.Remote; Snapshot and Wait",
		scans:     "Scan(start, nil).All()",
		batches:   "MultiGet; a Batch and Apply",
		describe:  func(s settings) string { return fmt.Sprintf("MemoryBytes %s, else defaults", bytesText(s.Memory)) },
	}
	if e.Driver().Class() == engine.Log {
		k.class = acked
	}
	return k
}

// syncKind is one of our engines with every write synced.
func syncKind(e kvstore.Engine) kind {
	k := ourKind(e)
	k.name, k.class = e.String()+"-sync", durable
	describe := k.describe
	k.describe = func(s settings) string { return "SyncAlways, " + describe(s) }
	return k
}

var (
	lsmTreeSyncKind   = syncKind(kvstore.LSMTree{Sync: kvstore.SyncAlways})
	appendLogSyncKind = syncKind(kvstore.AppendLog{Sync: kvstore.SyncAlways})
)

type ours struct{ *kvstore.Store }

func (o ours) updater(fn change) func(key []byte) error {
	put := func(dst, old []byte, found bool) ([]byte, kvstore.Op) { return fn(dst, old, found), kvstore.Put }
	return func(key []byte) error { return o.Update(key, put) }
}

func (o ours) snapshot(id uint64) (done func() error, err error) {
	sn, err := o.Snapshot(context.Background(), id, nil)
	if err != nil {
		return nil, err
	}
	return func() error { return sn.Wait(context.Background()) }, nil
}

// uploadingOurs is one of ours with a remote.
type uploadingOurs struct {
	ours
	remote *meter
}

func (o uploadingOurs) uploads() (bytes, requests int64) { return o.remote.uploads() }

func (o ours) scan(start []byte, fn func(key, value []byte) bool) error {
	it := o.Scan(start, nil)
	for key, value := range it.All() {
		if !fn(key, value) {
			break
		}
	}
	return it.Err()
}

func (o ours) batcher() batcher { return &ourBatcher{Store: o.Store} }

type ourBatcher struct {
	*kvstore.Store
	batch kvstore.Batch
}

func (o *ourBatcher) getAll(keys [][]byte, fn func(i int, value []byte, found bool)) error {
	return o.MultiGet(keys, fn)
}

func (o *ourBatcher) setAll(keys, values [][]byte) error {
	o.batch.Reset()
	for i, key := range keys {
		o.batch.Set(key, values[i])
	}
	return o.Apply(&o.batch)
}
