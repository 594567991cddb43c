package suite

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
)

// A flow is a stateful dataflow in one process: workers, of which each has a
// store with a partition of the accounts, and a coordinator.
//
//	                     ┌──► worker 0, store 0 ◄─┐
//	input: 0 1 2 ▮ 3 4 ──┼──► worker 1, store 1 ◄─┼── values that were read
//	             │       ├──► worker 2, store 2 ◄─┤
//	          barrier    └──► worker 3, store 3 ◄─┘
//
// # Transactions
//
// The input is a sequence of transfers with positions. A source sends each, at the
// time that the rate intends, to the workers that have one of its accounts, and a
// worker does what it is sent in the order of the positions, one at a time: it
// reads its own accounts, sends what it read to the other workers of the transfer,
// waits for what they read, and then each computes the same outcome and writes its
// own part of it. So no locks are needed and no transaction is ever given up, the
// result is that of the transfers one after the other, and replaying them repeats
// it. Nothing can block for ever: of the transfers that are not done, all workers
// of the one with the lowest position can go on with it.
//
// # Snapshots
//
// Between two transfers, at a fixed interval, the source sends a barrier to all
// workers, with the next id, unless a worker is still busy with the one before.
// What is before the barrier in the input is before it at every worker. A worker
// that meets it takes a snapshot with this id and the position as metadata, and
// goes on while it is completed. So all snapshots of one id are one cut through the
// whole dataflow, without a pause. Another one comes after the end of the input,
// and when it is complete the dataflow is done.
//
// # Failure
//
// A worker that is killed stops where it is, also between two writes of one
// transfer. The coordinator learns of it at once and stops the others, which may
// be in the middle of a transfer too. Another worker takes the dead one's place,
// and opens what it left at its last snapshot. Then all roll back to the newest
// snapshot that every worker has, the input is replayed from the position in its
// metadata, and ids go on from it. A transfer that had been done before gives its
// answer a second time, which must be the same. Remotes, if there are any, learn of
// the rollback with the next snapshot: until then the newest snapshot that all of
// them have still is right, so there is no need to wait for them.
//
// A process cannot kill a part of itself: nothing would release the lock of the
// directory and the goroutines and memory of the store. So while the clock of the
// experiment stands still the store is cut off from its remote, its directory is
// copied as a killed process would have left it, see copyKilled, and it is closed;
// the copy is what is opened. The background work of the other stores goes on
// meanwhile.
type flow struct {
	workers  int
	accounts int
	input    []transfer
	rate     float64       // transfers a second
	every    time.Duration // between snapshots
	kills    []kill        // in the order of their times
	dir      string        // of all that the stores have
	options  kvstore.Options
	remote   bool // whether there is one, a directory for each worker

	// Tests put something wrong in the place of these.
	partition func(worker int, s *kvstore.Store) partition
	choose    func(ids [][]uint64) (uint64, error)

	stores  []*kvstore.Store // by worker
	dirs    []string         // of the stores
	uplinks []*uplink        // of the stores, if there is a remote

	// start is when the clock began. It is changed while no worker runs.
	start time.Time
	// done is when a transfer was done for the first time, and answers what it
	// answered. An entry belongs to the worker that is the last to do its part.
	done    []time.Duration
	answers []int64

	snapshots  []cut
	recoveries []recovered
}

// A kill is what is to happen to a worker.
type kill struct {
	at     time.Duration
	worker int
}

// A cut is a snapshot that all workers have completed: when the first took it, and
// when the last had completed it.
type cut struct{ from, to time.Duration }

// A recovered failure: when the worker was killed, when the first transfer was
// done again, and how many of those that had been done were rolled back.
type recovered struct {
	from, to   time.Duration
	rolledBack int
}

// partition is what a worker does with its store for transfers.
type partition interface {
	Get(dst, key []byte) ([]byte, error)
	Set(key, value []byte) error
}

// newFlow returns a flow that has what depends on its input; the caller sets the
// rest.
func newFlow(workers, accounts int, input []transfer) *flow {
	return &flow{
		workers: workers, accounts: accounts, input: input,
		partition: func(_ int, s *kvstore.Store) partition { return s },
		choose:    newestCommon,
		done:      make([]time.Duration, len(input)),
		answers:   make([]int64, len(input)),
		stores:    make([]*kvstore.Store, workers),
		dirs:      make([]string, workers),
		uplinks:   make([]*uplink, workers),
	}
}

// now returns the time since the clock began.
func (f *flow) now() time.Duration { return time.Since(f.start) }

// intended returns when a transfer is to start.
func (f *flow) intended(position int) time.Duration {
	return time.Duration(float64(position) / f.rate * float64(time.Second))
}

// firstID is that of the snapshot of the accounts as they begin.
const firstID = 1

// run does the whole input. The stores stay open, for close.
func (f *flow) run(ctx context.Context) error {
	if err := f.each(func(w int) error { return f.fill(ctx, w) }); err != nil {
		return err
	}
	f.start = time.Now()
	position, id, kills := 0, uint64(firstID), f.kills
	for {
		a := newAttempt(f, position, id)
		var next *kill
		if len(kills) > 0 {
			next = &kills[0]
		}
		killed, at, err := a.run(ctx, next)
		for i := range f.recoveries {
			if r := &f.recoveries[i]; r.to == 0 { // also of a failure before that
				r.to = time.Duration(a.first.Load())
			}
		}
		if err != nil || !killed {
			return err
		}
		if position, id, err = f.recover(ctx, next.worker); err != nil {
			return fmt.Errorf("recovery of worker %d, killed at %v: %w", next.worker, at, err)
		}
		rolledBack := 0
		for _, done := range f.done[position:] {
			if done != 0 {
				rolledBack++
			}
		}
		f.recoveries = append(f.recoveries, recovered{from: at, rolledBack: rolledBack})
		kills = kills[1:]
	}
}

// open opens the store of a worker.
func (f *flow) open(w int, start kvstore.Which) (err error) {
	o := f.options
	o.Start = start
	if f.remote {
		dir, err := bucket.NewDir(filepath.Join(f.dir, "remote", fmt.Sprint(w)))
		if err != nil {
			return err
		}
		f.uplinks[w] = &uplink{Dir: dir}
		o.Remote = f.uplinks[w]
	}
	f.stores[w], err = kvstore.Open(f.dirs[w], o)
	return err
}

// fill opens the store of a worker, gives it its accounts, and takes the first
// snapshot.
func (f *flow) fill(ctx context.Context, w int) error {
	f.dirs[w] = filepath.Join(f.dir, fmt.Sprintf("worker-%d", w))
	if err := f.open(w, kvstore.Newest); err != nil {
		return err
	}
	value := opening.append(nil)
	if _, err := f.stores[w].Load(ctx, func(yield func(k, v []byte) bool) {
		var key []byte
		for n := range uint32(f.accounts) {
			if ownerOf(n, f.workers) == w {
				if key = appendKey(key[:0], n); !yield(key, value) {
					return
				}
			}
		}
	}); err != nil {
		return err
	}
	snapshot, err := f.stores[w].Snapshot(ctx, firstID, appendPosition(0))
	if err != nil {
		return err
	}
	return snapshot.Wait(ctx)
}

// The metadata of a snapshot is the position of the first transfer that is not in
// it.
func appendPosition(position int) []byte {
	return binary.LittleEndian.AppendUint64(nil, uint64(position))
}

func (f *flow) parsePosition(meta []byte) (int, error) {
	if len(meta) != 8 || binary.LittleEndian.Uint64(meta) > uint64(len(f.input)) {
		return 0, fmt.Errorf("the metadata %#x are no position in the input", meta)
	}
	return int(binary.LittleEndian.Uint64(meta)), nil
}

// recover replaces a worker that was killed, and rolls all back. It returns the
// position to go on from and the id of the snapshot.
func (f *flow) recover(ctx context.Context, dead int) (position int, id uint64, err error) {
	stopped := time.Now()
	if err := f.abandon(dead); err != nil {
		return 0, 0, err
	}
	f.start = f.start.Add(time.Since(stopped))

	if err := f.open(dead, kvstore.LastSnapshot); err != nil {
		return 0, 0, err
	}
	ids := make([][]uint64, f.workers)
	if err := f.each(func(w int) error {
		infos, err := f.stores[w].Snapshots(ctx)
		for _, info := range infos {
			if !info.Abandoned {
				ids[w] = append(ids[w], info.ID)
			}
		}
		return err
	}); err != nil {
		return 0, 0, err
	}
	if id, err = f.choose(ids); err != nil {
		return 0, 0, err
	}
	positions := make([]int, f.workers)
	if err := f.each(func(w int) (err error) {
		base, exact := f.stores[w].Base()
		if base.ID != id || !exact {
			if err := f.stores[w].Rollback(ctx, kvstore.ID(id), kvstore.LocalOnly); err != nil {
				return err
			}
			base, _ = f.stores[w].Base()
		}
		positions[w], err = f.parsePosition(base.Meta)
		return err
	}); err != nil {
		return 0, 0, err
	}
	for w, p := range positions {
		if p != positions[0] {
			return 0, 0, fmt.Errorf("snapshot %d is at position %d at worker 0 and at %d at worker %d", id, positions[0], p, w)
		}
	}
	return positions[0], id, nil
}

// abandon puts what a kill leaves in the place of the directory of a worker.
func (f *flow) abandon(w int) error {
	if f.uplinks[w] != nil {
		f.uplinks[w].cut.Store(true)
	}
	store, dir := f.stores[w], f.dirs[w]
	f.stores[w], f.dirs[w] = nil, filepath.Join(f.dir, fmt.Sprintf("worker-%d-after-%d", w, len(f.recoveries)+1))
	return errors.Join(copyKilled(f.dirs[w], dir), store.Close())
}

// newestCommon returns the largest id that is in all lists, which ascend.
func newestCommon(ids [][]uint64) (uint64, error) {
	workers := map[uint64]int{}
	var newest uint64
	for _, list := range ids {
		for _, id := range list {
			if workers[id]++; workers[id] == len(ids) {
				newest = max(newest, id)
			}
		}
	}
	if newest == 0 {
		return 0, fmt.Errorf("no snapshot that all workers have: they have %v", ids)
	}
	return newest, nil
}

// each calls fn for all workers at once, and returns the errors.
func (f *flow) each(fn func(w int) error) error {
	errs := make([]error, f.workers)
	var all sync.WaitGroup
	for w := range f.workers {
		all.Go(func() {
			if err := fn(w); err != nil {
				errs[w] = fmt.Errorf("worker %d: %w", w, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// close closes the stores that are open.
func (f *flow) close() error {
	return f.each(func(w int) error {
		if f.stores[w] == nil {
			return nil
		}
		return f.stores[w].Close()
	})
}

// An attempt is the work of a flow from a position to the end of the input, or to
// a failure. Nothing of it is used after.
type attempt struct {
	*flow
	from int    // position of the first transfer
	id   uint64 // of the snapshot there

	inbox []chan message // by worker
	// reads are what the first worker sends to the second, in the order of their
	// transfers. There are never more than two on the way: to send a third, the
	// first needs what the second reads for its second transfer, and the second
	// has taken one then. So sending does not wait.
	reads [][]chan exchange
	parts []atomic.Int32 // by transfer: workers that have done theirs
	first atomic.Int64   // when the first was done

	taking    atomic.Bool // a snapshot
	completed chan completion
}

// A message is for a worker: a transfer by its position, or a barrier before it.
type message struct {
	position int
	snapshot uint64 // id of the barrier, 0 for a transfer
}

// An exchange has the accounts of a transfer that its sender owns.
type exchange struct {
	position int
	accounts [3]account
}

// A completion tells the coordinator that a worker has completed a snapshot.
type completion struct {
	cut
	position int
}

// inboxSize is how far the source may be ahead of a worker.
const inboxSize = 1024

func newAttempt(f *flow, from int, id uint64) *attempt {
	a := &attempt{
		flow: f, from: from, id: id,
		parts:     make([]atomic.Int32, len(f.input)-from),
		completed: make(chan completion),
	}
	for range f.workers {
		a.inbox = append(a.inbox, make(chan message, inboxSize))
		to := make([]chan exchange, f.workers)
		for w := range to {
			to[w] = make(chan exchange, 2)
		}
		a.reads = append(a.reads, to)
	}
	return a
}

// run is the coordinator. It returns when all is done, or a worker was killed as it
// was to be, and at what time.
func (a *attempt) run(ctx context.Context, next *kill) (killed bool, at time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var all sync.WaitGroup
	defer func() {
		cancel(nil)
		all.Wait()
		// An error may have come while we were about to return without one.
		if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
			err = cause
		}
	}()
	die, dead := make([]context.CancelFunc, a.workers), make([]chan struct{}, a.workers)
	for w := range a.workers {
		var life context.Context
		life, die[w] = context.WithCancel(ctx)
		defer die[w]()
		dead[w] = make(chan struct{})
		worker := &worker{attempt: a, index: w, store: a.partition(w, a.stores[w]), snapshots: &all}
		all.Go(func() {
			defer close(dead[w])
			worker.run(life, cancel)
		})
	}
	all.Go(func() { a.source(ctx) })

	var alarm <-chan time.Time
	if next != nil {
		alarm = time.After(next.at - a.now())
	}
	var taken cut
	completions := 0
	for {
		select {
		case <-ctx.Done():
			return false, 0, context.Cause(ctx)
		case <-alarm:
			at := a.now()
			die[next.worker]()
			<-dead[next.worker]
			return true, at, nil
		case c := <-a.completed:
			if completions == 0 {
				taken = c.cut
			}
			taken = cut{min(taken.from, c.from), max(taken.to, c.to)}
			if completions++; completions == a.workers {
				a.snapshots = append(a.snapshots, taken)
				if c.position == len(a.input) {
					return false, 0, nil
				}
				completions = 0
				a.taking.Store(false)
			}
		}
	}
}

// source sends the input, and the barriers.
func (a *attempt) source(ctx context.Context) {
	id, due := a.id, a.now()+a.every
	var all, to []int
	for w := range a.workers {
		all = append(all, w)
	}
	for position := a.from; position < len(a.input); position++ {
		if !await(ctx, a.start.Add(a.intended(position))) {
			return
		}
		if now := a.now(); now >= due {
			due += (now - due).Truncate(a.every) + a.every
			if a.taking.CompareAndSwap(false, true) {
				id++
				a.send(ctx, all, message{position, id})
			}
		}
		to = a.input[position].workersOf(a.workers, to[:0])
		a.send(ctx, to, message{position: position})
	}
	for !a.taking.CompareAndSwap(false, true) {
		if !await(ctx, time.Now().Add(a.every)) {
			return
		}
	}
	a.send(ctx, all, message{len(a.input), id + 1})
}

// send gives a message to workers, unless ctx ends.
func (a *attempt) send(ctx context.Context, to []int, m message) {
	for _, w := range to {
		select {
		case a.inbox[w] <- m:
		case <-ctx.Done():
		}
	}
}

// How the source waits, as the open loops of package bench do.
const (
	sleepMargin = 2 * time.Millisecond
	longestNap  = 50 * time.Millisecond
)

// await returns at a time, or earlier, and then false, when ctx ends. It ends with
// a spin, as a sleep is not exact, and lets other goroutines run while it does.
func await(ctx context.Context, until time.Time) bool {
	for {
		if ctx.Err() != nil {
			return false
		}
		switch wait := time.Until(until); {
		case wait <= 0:
			return true
		case wait > sleepMargin:
			time.Sleep(min(wait-sleepMargin, longestNap))
		default:
			runtime.Gosched()
		}
	}
}
