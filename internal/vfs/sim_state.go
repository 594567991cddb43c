package vfs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"
)

// OpenFiles returns how many files, locks and mappings are open, so that a
// test can assert that nothing leaks.
func (s *Sim) OpenFiles() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// Clone returns an independent Sim that holds what processes see now, all of
// it durable, with an empty trace.
func (s *Sim) Clone() *Sim {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	return newSim(s.tree.reachable())
}

// reachable is a clone without the files that have no name.
func (t tree) reachable() tree {
	out := tree{t.names.clone(), make(map[uint64]*content, len(t.files))}
	for _, entries := range t.names {
		for _, ino := range entries {
			if ino != isDirEntry {
				out.files[ino] = t.files[ino].clone()
			}
		}
	}
	return out
}

// Dump lists the directories and files that processes see, sorted, one a
// line, files with size and a hash of the content. Equal dumps mean equal
// states.
func (s *Sim) Dump() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	var out strings.Builder
	for _, dir := range sortedKeys(s.tree.names) {
		fmt.Fprintf(&out, "%s/\n", strings.TrimSuffix(dir, "/"))
		entries := s.tree.names[dir]
		for _, name := range sortedKeys(entries) {
			if ino := entries[name]; ino != isDirEntry {
				c := s.tree.files[ino]
				fmt.Fprintf(&out, "%s %d %s\n", path.Join(dir, name), c.size, c.digest())
			}
		}
	}
	return out.String()
}

// digest, unlike hash, is the same in every process.
func (c *content) digest() string {
	h := sha256.New()
	for at := int64(0); at < c.size; at += pageSize {
		p := c.page(at / pageSize)
		if p == nil {
			p = zeroPage
		}
		h.Write(p.b[:min(pageSize, c.size-at)])
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
