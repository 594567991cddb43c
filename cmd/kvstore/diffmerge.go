package main

import (
	"bytes"
	"iter"

	"github.com/nikosgavalas/kvstore"
)

// keyChange is what happened to a key.
type keyChange string

const (
	keyAdded     keyChange = "added"
	keyChanged   keyChange = "changed"
	keyRemoved   keyChange = "removed"
	keyUnchanged keyChange = "unchanged"
)

func (k keyChange) sign() byte {
	switch k {
	case keyAdded:
		return '+'
	case keyRemoved:
		return '-'
	}
	return '~'
}

// change is a key with its values before and after, of which there is none if
// it was added or removed. The slices are valid during the call that gets it.
type change struct {
	op       keyChange
	key      []byte
	old, new []byte
}

// merge calls fn for each key of two scans, in their order, until that fails.
// It holds one entry of each.
func merge(before, after *kvstore.Iterator, fn func(change) error) error {
	a, b := newCursor(before), newCursor(after)
	defer a.stop()
	defer b.stop()
	for stepA, stepB := true, true; ; {
		if stepA {
			if err := a.step(); err != nil {
				return err
			}
		}
		if stepB {
			if err := b.step(); err != nil {
				return err
			}
		}
		if !a.ok && !b.ok {
			return nil
		}
		order := a.compare(b)
		var c change
		switch {
		case order < 0:
			c = change{op: keyRemoved, key: a.key, old: a.value}
		case order > 0:
			c = change{op: keyAdded, key: b.key, new: b.value}
		case bytes.Equal(a.value, b.value):
			c = change{op: keyUnchanged, key: a.key, old: a.value, new: b.value}
		default:
			c = change{op: keyChanged, key: a.key, old: a.value, new: b.value}
		}
		if err := fn(c); err != nil {
			return err
		}
		stepA, stepB = order <= 0, order >= 0
	}
}

// cursor is a scan that is taken a step at a time.
type cursor struct {
	it         *kvstore.Iterator
	next       func() (key, value []byte, ok bool)
	stop       func()
	key, value []byte // valid until the next step
	ok         bool   // there are key and value
}

func newCursor(it *kvstore.Iterator) *cursor {
	c := &cursor{it: it}
	c.next, c.stop = iter.Pull2(it.All())
	return c
}

// step goes to the next key. A scan that was cut short is an error at once: the
// keys that it lacks would be taken for changes.
func (c *cursor) step() error {
	c.key, c.value, c.ok = c.next()
	if !c.ok {
		return c.it.Err()
	}
	return nil
}

// compare orders cursors by their keys; one that has ended is behind all.
func (c *cursor) compare(d *cursor) int {
	switch {
	case !d.ok:
		return -1
	case !c.ok:
		return 1
	}
	return bytes.Compare(c.key, d.key)
}
