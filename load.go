package kvstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// loadBatch is about how many bytes Load writes at once.
const loadBatch = 256 << 10

// Load gives keys the values that a sequence pairs them with, one after the
// other, and returns how many pairs it has written: the last of a key wins. It is
// the fast way to fill a store. A new LSMTree, which was never written to, takes
// keys that ascend without its log and memory: they become visible at the end of
// the sequence or where the order breaks, all at once, and are durable then.
// Otherwise pairs are written in batches, some at once.
//
// Load as a whole is not atomic. At any time, also after an error or a crash, what
// is written is the beginning of the sequence. A pair that no store takes ends it
// with ErrInvalidKey or ErrTooLarge, and the end of ctx with the error of ctx, when
// the next pair comes. A sequence that fails has to end, and tell its reason in
// another way.
//
// The store may be used meanwhile, also by the sequence, except that it must not
// call Close: that waits for Load. Each pair is a write of its own among the
// others. A rollback takes what was written before it.
func (s *Store) Load(ctx context.Context, pairs iter.Seq2[[]byte, []byte]) (written int64, err error) {
	l := loader{s: s, ctx: ctx}
	if e, ok := s.eng.(engine.Loader); ok {
		l.direct = e.Load()
	}
	defer l.end()
	if err = ctx.Err(); err == nil {
		for key, value := range pairs {
			if err = l.add(key, value); err != nil {
				break
			}
		}
	}
	if err == nil {
		err = l.finish()
	}
	return l.written, explain(err)
}

// loader writes pairs to a store.
type loader struct {
	s       *Store
	ctx     context.Context
	written int64

	direct engine.Load // takes pairs as long as keys ascend; nil if it does not
	last   []byte      // the key that it was given last; nil if none
	given  int64       // how many

	batch   engine.Batch // that is to be written
	unasked int          // bytes since ctx was asked
}

func (l *loader) add(key, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if err := checkValue(value); err != nil {
		return err
	}
	if l.unasked += len(key) + len(value); l.unasked >= loadBatch {
		l.unasked = 0
		if err := l.ctx.Err(); err != nil {
			return err
		}
	}
	if l.direct != nil && bytes.Compare(key, l.last) > 0 {
		l.last = append(l.last[:0], key...)
		l.given++
		return l.direct.Add(key, value)
	}
	if err := l.endDirect(); err != nil {
		return err
	}
	return l.write(key, value)
}

// write adds a pair to the batch. One that is large is written by itself, so that
// no batch is over the limit.
func (l *loader) write(key, value []byte) error {
	n := len(key) + len(value)
	if l.batch.Size()+n > loadBatch {
		if err := l.flush(); err != nil {
			return err
		}
	}
	if n <= loadBatch {
		l.batch.Set(key, value)
		return nil
	}
	err := l.s.eng.Set(key, value)
	if err == nil {
		l.written++
	}
	return err
}

func (l *loader) flush() error {
	if l.batch.Len() == 0 {
		return nil
	}
	if err := l.ctx.Err(); err != nil {
		return err
	}
	if err := l.s.eng.Apply(&l.batch); err != nil {
		return err
	}
	l.written += int64(l.batch.Len())
	l.batch.Reset()
	return nil
}

// endDirect makes what the engine was given directly a part of the store. If
// somebody else has written meanwhile, it is written in batches.
func (l *loader) endDirect() error {
	if l.direct == nil {
		return nil
	}
	defer l.end()
	if err := l.ctx.Err(); err != nil {
		return err
	}
	ok, err := l.direct.Finish()
	if err != nil {
		return err
	}
	if !ok {
		return l.direct.Scan(l.write)
	}
	l.written += l.given
	return nil
}

func (l *loader) finish() error {
	if err := l.endDirect(); err != nil {
		return err
	}
	return l.flush()
}

// end releases what the engine was given directly.
func (l *loader) end() {
	if l.direct != nil {
		l.direct.End()
		l.direct = nil
	}
}

// Create makes a directory a store whose first content fill writes, and closes it.
// Until fill has returned nil, and all is durable, the directory is not a store:
// what an error or a crash leaves cannot be opened by mistake, and Create can be
// called again. The directory must be as for Restore. fill must not close the
// store.
//
// Options.Start and Options.Remote are for opening the store afterwards; here they
// are refused.
func Create(dir string, opts Options, fill func(*Store) error) error {
	err := errors.New("a new store has no state to start at and uploads nothing; open it with Start and Remote afterwards")
	if (opts.Start == nil || opts.Start == Newest) && opts.Remote == nil {
		err = create(dir, opts, origin{line: manifest.Line{ID: random()}}, fill)
	}
	if err != nil {
		return fmt.Errorf("making a store in %s: %w", dir, explain(err))
	}
	return nil
}

// create makes a directory a store that goes on where another one was.
func create(dir string, opts Options, from origin, fill func(*Store) error) (err error) {
	if dir == "" {
		return errors.New("the name of the directory is empty")
	}
	if opts.Engine == nil {
		opts.Engine = Engines()[0]
	}
	if err := vacant(dir, opts.Engine); err != nil {
		return err
	}
	first := from.first()
	s, err := begin(dir, opts, &first)
	if err != nil {
		return err
	}
	finished := false
	defer func() { // fill may panic
		if !finished {
			s.sched.Close() // what works in the background must not find it failed
			s.discard()
			err = errors.Join(err, s.lock.Close())
		}
	}()
	if err := fill(s); err != nil {
		return err
	}
	if seq := s.eng.Seq(); seq.Durable < seq.Issued {
		if err := s.eng.Sync(); err != nil {
			return err
		}
	}
	err = s.dir.Commit(func(m *manifest.Manifest) error {
		m.Unfinished = false
		return nil
	})
	if err != nil {
		return err
	}
	finished = true
	return s.Close()
}
