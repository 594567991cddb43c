package lsmtree

import (
	"slices"

	"github.com/nikosgavalas/kvstore/internal/logfile"
	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// made notes a file that is pinned until the manifest names it.
func (t *tree) made(f manifest.File) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pinned = append(t.pinned, f)
}

// unpin gives up the pins that files were made with: the manifest has them now,
// or will not.
func (t *tree) unpin(files []manifest.File) {
	named := func(f manifest.File) bool {
		return slices.ContainsFunc(files, func(g manifest.File) bool { return g.Kind == f.Kind && g.N == f.N })
	}
	t.mu.Lock()
	var gone []manifest.File
	t.pinned = slices.DeleteFunc(slices.Clone(t.pinned), func(f manifest.File) bool {
		if named(f) {
			gone = append(gone, f)
		}
		return named(f)
	})
	t.mu.Unlock()
	for _, f := range gone {
		t.env.Dir.Unpin(f.Kind, f.N)
	}
}

// contentLocked returns what there is. mu is held.
func (t *tree) contentLocked() content {
	var c content
	for _, r := range t.version.Load().runs {
		c.runs = append(c.runs, r.entry)
		c.levels = append(c.levels, r.level)
	}
	c.growing, c.flushed = t.wal.state()
	return c
}

// publish makes the manifest name what the state is in memory.
func (t *tree) publish() error {
	var runs []manifest.File
	var flushed uint64
	var gone []*logfile.File
	var waiting bool
	err := t.env.Dir.Commit(func(m *manifest.Manifest) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		c := t.contentLocked()
		runs, flushed = c.runs, c.flushed
		gone = t.wal.goneFiles()
		waiting = t.waiting > 0
		m.State = c.encode(max(m.State.Seq, t.log.Durable(), c.flushed))
		return nil
	})
	if err != nil {
		return err
	}
	t.unpin(runs)
	if waiting {
		// A cut has parts of files that are gone.
		if err := t.log.Wait(flushed); err != nil {
			return err
		}
	}
	t.log.Cover(flushed, gone)
	return t.wal.close(gone)
}
