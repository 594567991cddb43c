package hybridlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/engine/readall"
)

const hotKeys = 4

// hotState is the values of the hot keys, "" for none.
type hotState [hotKeys]string

// hotCall is an operation on hot keys: a read, a write of some of them, or
// something that all of them take part in at once.
type hotCall struct {
	op     string
	key    int
	value  string
	writes []hotWrite // of a batch
	all    hotState   // of a rollback
}

type hotWrite struct {
	key   int
	value string // "" deletes
}

// longest is how long an Update makes a value before it begins anew: longer than
// the pages here, so that all ways to write are taken.
const longest = 200

func hotAppend(old, more string) string {
	if len(old) > longest {
		return more
	}
	return old + more
}

func hotStep(state, input, output any) (bool, any) {
	s, c := state.(hotState), input.(hotCall)
	switch c.op {
	case "get":
		return output.(string) == s[c.key], s
	case "has":
		return output.(bool) == (s[c.key] != ""), s
	case "set", "delete":
		s[c.key] = c.value
	case "append":
		if output.(string) != s[c.key] {
			return false, s
		}
		s[c.key] = hotAppend(s[c.key], c.value)
	case "take":
		if output.(string) != s[c.key] {
			return false, s
		}
		s[c.key] = ""
	case "batch":
		for _, w := range c.writes {
			s[w.key] = w.value
		}
	case "cut":
		return output.(hotState) == s, s
	case "roll back":
		return true, c.all
	}
	return true, s
}

var hotModel = porcupine.Model{
	Init:              func() any { return hotState{} },
	Step:              hotStep,
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

func hotKey(i int) []byte { return []byte{'h', byte('a' + i)} }

// hotHistory is what porcupine checks.
type hotHistory struct {
	begin time.Time
	mu    sync.Mutex
	calls []porcupine.Operation
}

func (h *hotHistory) now() int64 { return time.Since(h.begin).Nanoseconds() }

func (h *hotHistory) add(client int, start, end int64, c hotCall, output any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, porcupine.Operation{ClientId: client, Input: c, Output: output, Call: start, Return: end})
}

// hotValue returns a value that no other call writes: mostly of one length, so
// that it replaces another in place, else longer, also than a page.
func hotValue(rng *rand.Rand, client, i int) string {
	v := fmt.Sprintf("%d.%04d;", client, i)
	switch rng.IntN(8) {
	case 0:
		v += strings.Repeat("v", rng.IntN(60))
	case 1:
		if rng.IntN(4) == 0 {
			v += strings.Repeat("L", longest)
		}
	}
	return v
}

// hotRun makes one random call.
func hotRun(e *hybridLog, h *hotHistory, rng *rand.Rand, client, i int) error {
	c := hotCall{op: []string{
		"get", "get", "has", "set", "set", "delete", "append", "append", "keep", "take", "batch", "batch", "multiget", "scan",
	}[rng.IntN(14)], key: rng.IntN(hotKeys)}
	key := hotKey(c.key)
	var out any
	var b engine.Batch
	switch c.op {
	case "set", "append":
		c.value = hotValue(rng, client, i)
	case "batch":
		for n := 2 + rng.IntN(3); len(c.writes) < n; {
			w := hotWrite{key: rng.IntN(hotKeys)}
			if rng.IntN(4) == 0 {
				b.Delete(hotKey(w.key))
			} else {
				w.value = hotValue(rng, client, i)
				b.Set(hotKey(w.key), []byte(w.value))
			}
			c.writes = append(c.writes, w)
		}
	}
	// each adds the reads of a call that looks at its keys one by one.
	each := func(start int64, got hotState) {
		end := h.now()
		for k, v := range got {
			h.add(client, start, end, hotCall{op: "get", key: k}, v)
		}
	}
	start := h.now()
	var err error
	switch c.op {
	case "get":
		var v []byte
		if v, err = e.Get(nil, key); errors.Is(err, engine.ErrNotFound) {
			err = nil
		}
		out = string(v)
	case "has":
		out, err = e.Has(key)
	case "set":
		err = e.Set(key, []byte(c.value))
	case "delete":
		err = e.Delete(key)
	case "append", "keep", "take":
		op := map[string]engine.Op{"append": engine.Put, "keep": engine.Keep, "take": engine.Remove}[c.op]
		var before string
		err = e.Update(key, func(dst, old []byte, found bool) ([]byte, engine.Op) {
			before = string(old)
			return append(dst, hotAppend(before, c.value)...), op
		})
		out = before
		if c.op == "keep" {
			c.op = "get"
		}
	case "batch":
		err = e.Apply(&b)
	case "multiget":
		var keys [][]byte
		for k := range hotKeys {
			keys = append(keys, hotKey(k))
		}
		var got hotState
		err = e.MultiGet(keys, func(i int, v []byte, found bool) {
			if got[i] = string(v); found && got[i] == "" {
				got[i] = "there" // no value is empty
			}
		})
		if err == nil {
			each(start, got)
		}
		return err
	case "scan":
		var got hotState
		err = e.Scan([]byte("h"), []byte("i"), rng.IntN(2) == 0, func(key, v []byte) bool {
			got[key[1]-'a'] = string(v)
			return true
		})
		if errors.Is(err, engine.ErrRolledBack) {
			return nil
		}
		if err == nil {
			each(start, got)
		}
		return err
	}
	h.add(client, start, h.now(), c, out)
	return err
}

// newCutWorldRunning opens a new store on a simulated disk, which works in the
// background.
func newCutWorldRunning(t testing.TB, d Driver) *cutWorld {
	t.Helper()
	w := newCutWorld(t, d)
	w.manual = false
	w.reopen(t)
	return w
}

// hotVariants are settings under which the log moves through memory all the
// time, and those that take other ways.
func hotVariants() map[string]Driver {
	variants := map[string]Driver{}
	add := func(name string, change func(d *Driver)) {
		d := cutTiny
		change(&d)
		variants[name] = d
	}
	add("tiny", func(*Driver) {})
	add("shards", func(d *Driver) { d.Shards, d.PageBytes, d.LogBytes, d.SegmentBytes = 64, 256, 12*256, 1024 })
	add("in memory", func(d *Driver) { d.LogBytes = 1 << 20 })
	add("one hash", func(d *Driver) { d.Hash = func(uint64, []byte) uint64 { return 1 << 62 } })
	add("pairs", func(d *Driver) { d.Hash = cutPairs })
	add("no undo", func(d *Driver) { d.NoUndo = true })
	add("checkpoints", func(d *Driver) { d.CheckpointBytes = 1 })
	return variants
}

// TestLinearizable checks with porcupine that calls on a few keys take effect at
// one moment between their call and their return, while pages become read-only,
// go to disk, leave memory and are merged. A cut is one more call: it reads all
// keys at one moment, and a rollback writes all of them.
func TestLinearizable(t *testing.T) {
	const clients, calls, rounds = 3, 150, 10
	for name, d := range hotVariants() {
		t.Run(name, func(t *testing.T) {
			for round := range uint64(rounds) {
				w := newCutWorldRunning(t, d)
				h := &hotHistory{begin: time.Now()}
				var wg sync.WaitGroup
				var running atomic.Int64
				running.Store(clients)
				for client := range clients {
					rng := rand.New(rand.NewPCG(round, uint64(client)))
					wg.Go(func() {
						defer running.Add(-1)
						for i := range calls {
							if rng.IntN(3) == 0 {
								// Others, so that the log goes on.
								key := fmt.Sprint("other ", client, i%7)
								if err := w.e.Set([]byte(key), bytes.Repeat([]byte("o"), rng.IntN(60))); err != nil {
									t.Error(err)
								}
							}
							if err := hotRun(w.e, h, rng, client, i); err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
				w.disturb(t, h, rand.New(rand.NewPCG(round, clients)), &running)
				wg.Wait()
				for k := range hotKeys {
					start := h.now()
					v, err := w.e.Get(nil, hotKey(k))
					if err != nil && !errors.Is(err, engine.ErrNotFound) {
						t.Error(err)
					}
					h.add(clients+1, start, h.now(), hotCall{op: "get", key: k}, string(v))
				}
				switch porcupine.CheckOperationsTimeout(hotModel, h.calls, 20*time.Second) {
				case porcupine.Illegal:
					t.Errorf("round %d: %d calls are not linearizable", round, len(h.calls))
				case porcupine.Unknown:
					t.Logf("round %d: there was no time to check %d calls", round, len(h.calls))
				}
				w.model = readall.Content(t, w.e)
				w.reopen(t)
				w.check(t)
				w.end(t)
			}
		})
	}
}

// hotCut is a cut that is not finished, and when it was called.
type hotCut struct {
	engine.Cut
	start, end int64
}

// disturb moves the log through memory, cuts and rolls back, as long as clients
// run.
func (w *cutWorld) disturb(t *testing.T, h *hotHistory, rng *rand.Rand, running *atomic.Int64) {
	client := int(running.Load())
	var open []hotCut
	defer func() {
		for _, c := range open {
			c.Release()
		}
	}()
	for i := 0; running.Load() > 0 && !t.Failed(); i++ {
		switch rng.IntN(8) {
		case 0:
			cutMust(t, w.flush(rng.IntN(2) == 0))
		case 1:
			cutMust(t, w.evict(1+rng.IntN(6)))
		case 2:
			w.merge(t, 1+rng.IntN(4))
		case 3:
			cutMust(t, w.e.Sync())
		case 4:
			w.hotRollback(t, h, client, open)
			open = nil
		default:
			start := h.now()
			c, err := w.e.Cut()
			cutMust(t, err)
			open = append(open, hotCut{c, start, h.now()})
			if len(open) < 3 {
				continue
			}
			at := rng.IntN(len(open))
			w.hotFinish(t, h, client+len(open)+at, open[at])
			open = append(open[:at], open[at+1:]...)
		}
	}
}

// hotFinish finishes a cut and adds what it holds to the history.
func (w *cutWorld) hotFinish(t *testing.T, h *hotHistory, client int, c hotCut) (hotState, func() error) {
	defer c.Release()
	s, err := c.Finish(context.Background())
	cutMust(t, err)
	var got hotState
	for key, v := range w.view(t, s) {
		if key[0] == 'h' {
			got[key[1]-'a'] = v
		}
	}
	h.add(client, c.start, c.end, hotCall{op: "cut"}, got)
	cutMust(t, w.keep(s))
	return got, func() error { return w.install(s) }
}

// hotRollback goes back to one of the cuts, after which there are none.
func (w *cutWorld) hotRollback(t *testing.T, h *hotHistory, client int, open []hotCut) {
	for i, c := range open {
		got, install := w.hotFinish(t, h, client+i, c)
		if i < len(open)-1 {
			continue
		}
		start := h.now()
		cutMust(t, install())
		h.add(client, start, h.now(), hotCall{op: "roll back", all: got}, nil)
	}
}

// TestLinearizableCounters has several goroutines count on the same keys, far more
// often than porcupine can look at: each number must be seen once.
func TestLinearizableCounters(t *testing.T) {
	const clients, counters = 4, 3
	for name, d := range hotVariants() {
		t.Run(name, func(t *testing.T) {
			w := newCutWorldRunning(t, d)
			var running atomic.Int64
			running.Store(clients)
			var seen [counters]sync.Map
			var wg sync.WaitGroup
			for client := range clients {
				rng := rand.New(rand.NewPCG(5, uint64(client)))
				wg.Go(func() {
					defer running.Add(-1)
					var last [counters]int
					for range 10000 {
						i := rng.IntN(counters)
						key := []byte(fmt.Sprint("counter ", i))
						if rng.IntN(4) == 0 {
							v, err := w.e.Get(nil, key)
							if err != nil && !errors.Is(err, engine.ErrNotFound) {
								t.Error(err)
							}
							if n, _ := strconv.Atoi(string(v)); n < last[i] {
								t.Errorf("counter %d goes back from %d to %d", i, last[i], n)
							}
							continue
						}
						err := w.e.Update(key, func(dst, old []byte, _ bool) ([]byte, engine.Op) {
							last[i], _ = strconv.Atoi(string(old))
							last[i]++
							return strconv.AppendInt(dst, int64(last[i]), 10), engine.Put
						})
						if err != nil {
							t.Error(err)
							return
						}
						if _, again := seen[i].LoadOrStore(last[i], true); again {
							t.Errorf("counter %d came to %d twice", i, last[i])
							return
						}
					}
				})
			}
			rng := rand.New(rand.NewPCG(5, clients))
			for running.Load() > 0 && !t.Failed() {
				switch rng.IntN(5) {
				case 0:
					cutMust(t, w.flush(true))
				case 1:
					cutMust(t, w.evict(3))
				case 2:
					w.merge(t, 3)
				case 3:
					cutMust(t, w.e.Sync())
				case 4:
					c, err := w.e.Cut()
					cutMust(t, err)
					c.Release()
				}
			}
			wg.Wait()
			for i := range counters {
				n := 0
				seen[i].Range(func(any, any) bool { n++; return true })
				v, err := w.e.Get(nil, []byte(fmt.Sprint("counter ", i)))
				cutMust(t, err)
				if string(v) != strconv.Itoa(n) {
					t.Errorf("counter %d is %s after %d Updates", i, v, n)
				}
			}
			w.model = readall.Content(t, w.e)
			w.reopen(t)
			w.check(t)
			w.end(t)
		})
	}
}
