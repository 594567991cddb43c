package suite

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/bench"
)

// A Contender is an engine with its settings, or the mutex map.
type Contender struct {
	// Name is the display name, Settings those that were chosen.
	Name, Settings string
	// Open opens a store in a directory, which it makes, with a remote unless
	// that is nil.
	Open func(dir string, remote bucket.Bucket) (bench.Target, error)
}

// With returns an engine with options as a contender.
func With(o kvstore.Options) Contender {
	return Contender{
		Name:     DisplayName(o.Engine),
		Settings: settingsOf(o),
		Open: func(dir string, remote bucket.Bucket) (bench.Target, error) {
			o.Remote = remote
			store, err := kvstore.Open(dir, o)
			if err != nil {
				return nil, err
			}
			return target{Store: store, updates: newUpdates()}, nil
		},
	}
}

// MutexMap returns the baseline as a contender.
func MutexMap() Contender {
	return Contender{
		Name: bench.MutexMapName,
		Open: func(string, bucket.Bucket) (bench.Target, error) { return bench.NewMutexMap(), nil },
	}
}

// All returns the engines of the session as contenders, with these options, of
// which change, unless nil, gives each engine its settings.
func (s *Session) All(o kvstore.Options, change func(kvstore.Engine) kvstore.Engine) []Contender {
	var all []Contender
	for _, e := range s.Engines {
		if !s.concerns(e) {
			continue
		}
		o.Engine = e
		if change != nil {
			o.Engine = change(e)
		}
		all = append(all, With(o))
	}
	return all
}

// AllAndMap is All with the baseline.
func (s *Session) AllAndMap(o kvstore.Options, change func(kvstore.Engine) kvstore.Engine) []Contender {
	return append(s.All(o, change), MutexMap())
}

// concerns reports whether the experiment is about an engine.
func (s *Session) concerns(e kvstore.Engine) bool {
	names := s.experiment.Engines
	return names == nil || slices.Contains(names, e.String())
}

// DisplayName returns the name of an engine that results use.
func DisplayName(e kvstore.Engine) string { return reflect.TypeOf(e).Name() }

// settingsOf returns the options that are not their defaults, as in a program:
// "MemoryBytes=1048576 MaxRunsPerLevel=4".
func settingsOf(o kvstore.Options) string {
	var list []string
	if o.MemoryBytes != 0 {
		list = append(list, fmt.Sprintf("MemoryBytes=%d", o.MemoryBytes))
	}
	v := reflect.ValueOf(o.Engine)
	for i := range v.NumField() {
		if !v.Field(i).IsZero() {
			list = append(list, fmt.Sprintf("%s=%v", v.Type().Field(i).Name, v.Field(i)))
		}
	}
	return strings.Join(list, " ")
}

// target is a store as package bench measures it.
type target struct {
	*kvstore.Store
	updates *sync.Pool // of *update
}

// update makes a function for an Updater one for a store. They are kept, so that
// an update does not allocate.
type update struct {
	fn    func(dst, old []byte, found bool) []byte
	apply func(dst, old []byte, found bool) ([]byte, kvstore.Op)
}

func newUpdates() *sync.Pool {
	return &sync.Pool{New: func() any {
		u := new(update)
		u.apply = func(dst, old []byte, found bool) ([]byte, kvstore.Op) { return u.fn(dst, old, found), kvstore.Put }
		return u
	}}
}

// Update is that of bench.Updater.
func (t target) Update(key []byte, fn func(dst, old []byte, found bool) []byte) error {
	u := t.updates.Get().(*update)
	u.fn = fn
	err := t.Store.Update(key, u.apply)
	t.updates.Put(u)
	return err
}

// Scan is that of bench.Scanner.
func (t target) Scan(start []byte, fn func(key, value []byte) bool) error {
	it := t.Store.Scan(start, nil)
	for k, v := range it.All() {
		if !fn(k, v) {
			break
		}
	}
	return it.Err()
}
