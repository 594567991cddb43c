package suite

import (
	"context"
	"fmt"
	"sync"
)

// A worker does the parts of transfers that are about the accounts in its store,
// in the order of the input, until its life ends.
type worker struct {
	*attempt
	index      int
	store      partition
	snapshots  *sync.WaitGroup // of those that are being completed
	key, value []byte
	with       []int
}

// run tells failed if something goes wrong, not if life ends.
func (w *worker) run(life context.Context, failed context.CancelCauseFunc) {
	for {
		var m message
		select {
		case <-life.Done():
			return
		case m = <-w.inbox[w.index]:
		}
		var err error
		if m.snapshot != 0 {
			err = w.snapshot(life, m, failed)
		} else {
			err = w.transfer(life, m.position)
		}
		if life.Err() != nil {
			return
		}
		if err != nil {
			failed(fmt.Errorf("worker %d at position %d: %w", w.index, m.position, err))
			return
		}
	}
}

// snapshot takes the snapshot of a barrier. It is completed while the worker goes
// on.
func (w *worker) snapshot(life context.Context, m message, failed context.CancelCauseFunc) error {
	from := w.now()
	snapshot, err := w.stores[w.index].Snapshot(life, m.snapshot, appendPosition(m.position))
	if err != nil {
		return err
	}
	w.snapshots.Go(func() {
		err := snapshot.Wait(life)
		if life.Err() != nil {
			return
		}
		if err != nil {
			failed(fmt.Errorf("snapshot %d of worker %d: %w", m.snapshot, w.index, err))
			return
		}
		select {
		case w.completed <- completion{cut{from, w.now()}, m.position}:
		case <-life.Done():
		}
	})
	return nil
}

// transfer does the part of a transfer that this worker has. Between any two
// operations of the store its life may end.
func (w *worker) transfer(life context.Context, position int) error {
	t := &w.input[position]
	mine := func(i int) bool { return ownerOf(t.accounts[i], w.workers) == w.index }
	sent := exchange{position: position}
	for i := range t.n {
		if !mine(i) {
			continue
		}
		if life.Err() != nil {
			return nil
		}
		var err error
		if sent.accounts[i], err = w.read(t.accounts[i]); err != nil {
			return err
		}
	}
	w.with = t.workersOf(w.workers, w.with[:0])
	for _, other := range w.with {
		if other != w.index {
			w.reads[w.index][other] <- sent
		}
	}
	accounts := sent.accounts
	for _, other := range w.with {
		if other == w.index {
			continue
		}
		var got exchange
		select {
		case got = <-w.reads[other][w.index]:
		case <-life.Done():
			return nil
		}
		if got.position != position {
			return fmt.Errorf("worker %d is at position %d", other, got.position)
		}
		for i := range t.n {
			if ownerOf(t.accounts[i], w.workers) == other {
				accounts[i] = got.accounts[i]
			}
		}
	}
	answer := t.do(&accounts)
	for i := range t.n {
		if !mine(i) {
			continue
		}
		if life.Err() != nil {
			return nil
		}
		if err := w.write(t.accounts[i], accounts[i]); err != nil {
			return err
		}
	}
	return w.finish(position, answer)
}

func (w *worker) read(n uint32) (account, error) {
	w.key = appendKey(w.key[:0], n)
	var err error
	if w.value, err = w.store.Get(w.value[:0], w.key); err != nil {
		return account{}, fmt.Errorf("account %d: %w", n, err)
	}
	return parseAccount(w.value)
}

func (w *worker) write(n uint32, a account) error {
	w.key, w.value = appendKey(w.key[:0], n), a.append(w.value[:0])
	return w.store.Set(w.key, w.value)
}

// finish counts a part that was done. The last of a transfer answers, and if that
// is not the first time, then as before.
func (w *worker) finish(position int, answer int64) error {
	if int(w.parts[position-w.from].Add(1)) < len(w.with) {
		return nil
	}
	now := w.now()
	if w.done[position] == 0 {
		w.done[position], w.answers[position] = now, answer
	} else if w.answers[position] != answer {
		return fmt.Errorf("it answered %d, and %d when it was replayed", w.answers[position], answer)
	}
	w.first.CompareAndSwap(0, int64(now))
	return nil
}
