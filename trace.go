package kvstore

import (
	"context"
	"errors"
	"io"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"github.com/nikosgavalas/kvstore/internal/trace"
)

// tracedDriver is a driver whose engines record what they are asked to do. So a
// store that records nothing has no engine between, and pays nothing.
type tracedDriver struct {
	engine.Driver
	w      io.Writer
	sample int
}

func (d tracedDriver) Open(env engine.Env, s manifest.State) (engine.Engine, error) {
	eng, err := d.Driver.Open(env, s)
	if err != nil {
		return nil, err
	}
	return &tracedEngine{Engine: eng, driver: d, env: env}, nil
}

// tracedEngine is an engine that records operations when they have succeeded.
type tracedEngine struct {
	engine.Engine
	driver tracedDriver
	env    engine.Env
	trace  *trace.Writer // nil until Started: opening may fail, and writes nothing then
}

func (e *tracedEngine) Started() {
	log := e.env.Logger
	e.trace = trace.NewWriter(e.driver.w, trace.Config{
		Header: trace.Header{Sample: e.driver.sample, Start: e.env.Sched.Now(), Engine: e.driver.Name()},
		Seed:   random(),
		Now:    e.env.Sched.Now,
		Go:     func(job func()) { e.env.Sched.Go(func(context.Context) { job() }) },
		Failed: func(err error) { log.Error("kvstore: the trace ends here: its writer failed", "error", err) },
	})
	e.Engine.Started()
}

func (e *tracedEngine) Close() error {
	err := e.Engine.Close()
	if e.trace != nil {
		e.trace.Close()
	}
	return err
}

func (e *tracedEngine) Get(dst, key []byte) ([]byte, error) {
	hash, sampled := e.trace.Sampled(key)
	before := len(dst)
	dst, err := e.Engine.Get(dst, key)
	if sampled {
		switch {
		case err == nil:
			e.trace.Record(trace.Get, hash, len(key), len(dst)-before)
		case errors.Is(err, ErrNotFound):
			e.trace.Record(trace.Get, hash, len(key), trace.Absent)
		}
	}
	return dst, err
}

func (e *tracedEngine) Has(key []byte) (bool, error) {
	found, err := e.Engine.Has(key)
	if hash, sampled := e.trace.Sampled(key); sampled && err == nil {
		size := trace.Absent
		if found {
			size = 0
		}
		e.trace.Record(trace.Has, hash, len(key), size)
	}
	return found, err
}

func (e *tracedEngine) MultiGet(keys [][]byte, fn func(i int, value []byte, found bool)) error {
	return e.Engine.MultiGet(keys, func(i int, value []byte, found bool) {
		if hash, sampled := e.trace.Sampled(keys[i]); sampled {
			size := trace.Absent
			if found {
				size = len(value)
			}
			e.trace.Record(trace.Get, hash, len(keys[i]), size)
		}
		fn(i, value, found)
	})
}

func (e *tracedEngine) Set(key, value []byte) error {
	err := e.Engine.Set(key, value)
	if err == nil {
		e.wrote(key, value)
	}
	return err
}

func (e *tracedEngine) wrote(key, value []byte) {
	if hash, sampled := e.trace.Sampled(key); sampled {
		e.trace.Record(trace.Set, hash, len(key), len(value))
	}
}

func (e *tracedEngine) Delete(key []byte) error {
	err := e.Engine.Delete(key)
	if err == nil {
		e.deleted(key)
	}
	return err
}

func (e *tracedEngine) deleted(key []byte) {
	if hash, sampled := e.trace.Sampled(key); sampled {
		e.trace.Record(trace.Delete, hash, len(key), trace.Absent)
	}
}

func (e *tracedEngine) Update(key []byte, fn engine.UpdateFunc) error {
	hash, sampled := e.trace.Sampled(key)
	if !sampled {
		return e.Engine.Update(key, fn)
	}
	// fn may run more than once; the last time counts.
	kind, size := trace.Update, trace.Absent
	err := e.Engine.Update(key, func(dst, old []byte, found bool) ([]byte, Op) {
		before := len(dst)
		result, op := fn(dst, old, found)
		switch {
		case op == Put:
			kind, size = trace.Update, len(result)-before
		case op == Keep && found:
			kind, size = trace.Get, len(old)
		case op == Keep:
			kind, size = trace.Get, trace.Absent
		default:
			kind, size = trace.Update, trace.Absent
		}
		return result, op
	})
	if err == nil {
		e.trace.Record(kind, hash, len(key), size)
	}
	return err
}

func (e *tracedEngine) Apply(b *engine.Batch) error {
	err := e.Engine.Apply(b)
	if err != nil {
		return err
	}
	for i := range b.Len() {
		if key, value, remove := b.At(i); remove {
			e.deleted(key)
		} else {
			e.wrote(key, value)
		}
	}
	return nil
}

func (e *tracedEngine) Scan(start, end []byte, reverse bool, fn func(key, value []byte) bool) error {
	pairs := 0
	err := e.Engine.Scan(start, end, reverse, func(key, value []byte) bool {
		pairs++
		return fn(key, value)
	})
	if err == nil {
		from := start
		if reverse {
			from = end
		}
		hash, _ := e.trace.Sampled(from)
		e.trace.Record(trace.Scan, hash, min(len(from), MaxKey), pairs)
	}
	return err
}

func (e *tracedEngine) Cut() (engine.Cut, error) {
	cut, err := e.Engine.Cut()
	if err == nil {
		e.trace.Snapshot()
	}
	return cut, err
}

// Load makes the engine a Loader; if it is none, there is nothing to load
// directly.
func (e *tracedEngine) Load() engine.Load {
	if l, ok := e.Engine.(engine.Loader); ok {
		if load := l.Load(); load != nil {
			return tracedLoad{load, e}
		}
	}
	return nil
}

// tracedLoad records pairs as they come. If somebody else has written meanwhile
// they are recorded again when they are written in batches.
type tracedLoad struct {
	engine.Load
	e *tracedEngine
}

func (l tracedLoad) Add(key, value []byte) error {
	err := l.Load.Add(key, value)
	if err == nil {
		l.e.wrote(key, value)
	}
	return err
}
