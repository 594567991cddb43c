package hybridlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/engine"
)

// stressWorker has keys of its own, and so knows at any time what they are.
type stressWorker struct {
	e     *hybridLog
	id    byte
	rng   *rand.Rand
	n     int
	model map[string]string
}

const stressKeys = 40 // of a worker

func (s *stressWorker) key() string { return fmt.Sprintf("%c%02d", s.id, s.rng.IntN(stressKeys)) }

func (s *stressWorker) value() string {
	s.n++
	n := []int{0, 0, 8, 8, 8, 30, 100, 100, 700}[s.rng.IntN(9)]
	return fmt.Sprintf("%06d%s", s.n, strings.Repeat("v", n))
}

// step makes one random call and compares its outcome with the model.
func (s *stressWorker) step() error {
	key := s.key()
	want, there := s.model[key]
	switch s.rng.IntN(12) {
	case 0, 1, 2:
		value := s.value()
		s.model[key] = value
		return s.e.Set([]byte(key), []byte(value))
	case 3:
		delete(s.model, key)
		return s.e.Delete([]byte(key))
	case 4, 5:
		return s.update(key)
	case 6:
		return s.batch()
	case 7:
		return s.multiGet()
	case 8:
		if got, err := s.e.Has([]byte(key)); err != nil || got != there {
			return fmt.Errorf("%q is there: %v, %w; want %v", key, got, err, there)
		}
	case 9:
		if s.rng.IntN(10) == 0 {
			return s.scan()
		}
	default:
		got, err := s.e.Get(nil, []byte(key))
		if there && err != nil || !there && !errors.Is(err, engine.ErrNotFound) || string(got) != want {
			return fmt.Errorf("%q is %.40q, %v; want %.40q, %v", key, got, err, want, there)
		}
	}
	return nil
}

func (s *stressWorker) update(key string) error {
	want, there := s.model[key]
	add := s.value()
	op := []engine.Op{engine.Keep, engine.Put, engine.Put, engine.Put, engine.Remove}[s.rng.IntN(5)]
	var wrong error
	err := s.e.Update([]byte(key), func(dst, old []byte, found bool) ([]byte, engine.Op) {
		if found != there || string(old) != want {
			wrong = fmt.Errorf("Update of %q is given %.40q, %v; want %.40q, %v", key, old, found, want, there)
		}
		return append(append(dst, old[:min(len(old), 50)]...), add...), op
	})
	switch op {
	case engine.Put:
		s.model[key] = want[:min(len(want), 50)] + add
	case engine.Remove:
		delete(s.model, key)
	}
	return errors.Join(err, wrong)
}

func (s *stressWorker) batch() error {
	var b engine.Batch
	for range s.rng.IntN(40) {
		key := s.key()
		if s.rng.IntN(3) == 0 {
			delete(s.model, key)
			b.Delete([]byte(key))
			continue
		}
		value := s.value()
		s.model[key] = value
		b.Set([]byte(key), []byte(value))
	}
	return s.e.Apply(&b)
}

func (s *stressWorker) multiGet() error {
	var keys [][]byte
	for range s.rng.IntN(70) {
		keys = append(keys, []byte(s.key()))
	}
	var wrong error
	n := 0
	err := s.e.MultiGet(keys, func(i int, got []byte, found bool) {
		n++
		if want, there := s.model[string(keys[i])]; found != there || string(got) != want {
			wrong = fmt.Errorf("MultiGet of %q is %.40q, %v; want %.40q, %v", keys[i], got, found, want, there)
		}
	})
	if err == nil && n != len(keys) {
		wrong = fmt.Errorf("MultiGet of %d keys yields %d", len(keys), n)
	}
	return errors.Join(err, wrong)
}

// scan compares all keys of the worker.
func (s *stressWorker) scan() error {
	got, reverse := map[string]string{}, s.rng.IntN(2) == 0
	var keys []string
	err := s.e.Scan([]byte{s.id}, []byte{s.id + 1}, reverse, func(key, value []byte) bool {
		keys = append(keys, string(key))
		got[string(key)] = string(value)
		return true
	})
	if reverse {
		slices.Reverse(keys)
	}
	if err == nil && !slices.IsSorted(keys) {
		return fmt.Errorf("a scan yields %q", keys)
	}
	if err == nil && !maps.Equal(got, s.model) {
		return fmt.Errorf("worker %c: a scan yields %.300v, want %.300v", s.id, got, s.model)
	}
	return err
}

// TestStress has workers that do whatever there is to do, on a real disk with
// real work in the background, while another scans all of it and cuts are taken.
// When the workers rest there are snapshots and rollbacks.
func TestStress(t *testing.T) {
	const workers, rounds, steps = 4, 6, 200
	variants := hotVariants()
	for _, name := range []string{"tiny", "shards", "pairs", "checkpoints"} {
		d := variants[name]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(seed, workers))
			w := newCutWorldOnDisk(t, d)
			all := make([]*stressWorker, workers)
			for i := range all {
				all[i] = &stressWorker{e: w.e, id: byte('a' + i), rng: rand.New(rand.NewPCG(seed, uint64(i))), model: map[string]string{}}
			}
			var constant []string // keys that no rollback changes
			for i := range 30 {
				key := fmt.Sprint("stays ", i)
				constant = append(constant, key)
				w.set(t, key, strings.Repeat("c", i))
			}
			slices.Sort(constant)
			collect := func() map[string]string {
				whole := map[string]string{}
				for _, key := range constant {
					whole[key] = w.model[key]
				}
				for _, s := range all {
					maps.Copy(whole, s.model)
				}
				return whole
			}
			for round := range rounds {
				var wg sync.WaitGroup
				var running atomic.Int64
				for _, s := range all {
					running.Add(1)
					wg.Go(func() {
						defer running.Add(-1)
						for i := range steps {
							if err := s.step(); err != nil {
								t.Errorf("round %d, step %d: %v", round, i, err)
								return
							}
						}
						if err := s.scan(); err != nil {
							t.Errorf("round %d: %v", round, err)
						}
					})
				}
				wg.Go(func() {
					for running.Load() > 0 {
						if err := stressScan(w.e, constant); err != nil {
							t.Errorf("round %d: %v", round, err)
							return
						}
					}
				})
				for running.Load() > 0 {
					c, err := w.e.Cut()
					if err == nil && rng.IntN(6) == 0 {
						_, err = c.Finish(context.Background())
					}
					if err != nil {
						t.Error(err)
						break
					}
					c.Release()
				}
				wg.Wait()
				if t.Failed() {
					break
				}
				w.model = collect()
				switch rng.IntN(6) {
				case 0, 1:
					w.snapshot(t)
				case 2:
					w.check(t)
					w.reopen(t)
				case 3:
					w.sync(t)
				case 4:
					if len(w.snaps) == 0 {
						break
					}
					s := w.snaps[len(w.snaps)-1]
					if rng.IntN(3) == 0 {
						s = w.snaps[rng.IntN(len(w.snaps))]
					}
					// Merges go on: whether it is quick is not known before.
					cutMust(t, w.install(s.state))
					w.model = maps.Clone(s.content)
				}
				for _, s := range all {
					s.e = w.e
					clear(s.model)
					for key, value := range w.model {
						if key[0] == s.id && len(key) == 3 {
							s.model[key] = value
						}
					}
				}
			}
			if t.Failed() {
				w.end(t)
				return
			}
			w.check(t)
			for _, s := range w.snaps {
				cutCompare(t, "a view", w.view(t, s.state), s.content)
			}
			w.reopen(t)
			w.check(t)
			w.end(t)
		})
	}
}

// stressScan looks for all keys that are there all the time.
func stressScan(e *hybridLog, constant []string) error {
	var got []string
	var last []byte
	var wrong error
	err := e.Scan([]byte("a"), nil, false, func(key, value []byte) bool {
		if bytes.Compare(last, key) >= 0 {
			wrong = fmt.Errorf("a scan yields %q after %q", key, last)
		}
		last = append(last[:0], key...)
		if bytes.HasPrefix(key, []byte("stays")) {
			got = append(got, string(key))
		}
		return true
	})
	if err == nil && wrong == nil && !slices.Equal(got, constant) {
		wrong = fmt.Errorf("a scan yields %q, want %q", got, constant)
	}
	return errors.Join(err, wrong)
}
