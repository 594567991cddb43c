package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// checkpoints uploads those of a store whose tables never change, and whose
// names are never used again.
type checkpoints struct {
	remote *meter
	put    map[string]bool // the tables that are there
}

// tableUploads says what is uploaded.
const tableUploads = "its tables are put once, manifest and options each time, logs never, as the flush leaves nothing in them; up to 4 requests at a time"

func newCheckpoints(remote *meter) *checkpoints {
	return &checkpoints{remote: remote, put: make(map[string]bool)}
}

func (c *checkpoints) uploads() (bytes, requests int64) { return c.remote.uploads() }

// upload puts the files of a checkpoint: tables under their names, and others in
// a folder of its own, where the object "tables" lists what else it needs.
func (c *checkpoints) upload(id uint64, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	folder := fmt.Sprintf("checkpoint-%d/", id)
	files := make(map[string]string) // by the names of objects
	var tables []string
	for _, e := range entries {
		name := e.Name()
		switch filepath.Ext(name) {
		case ".log":
		case ".sst", ".blob":
			tables = append(tables, name)
			if !c.put[name] {
				files["table/"+name] = name
			}
		default:
			files[folder+name] = name
		}
	}
	err = putAll(slices.Sorted(maps.Keys(files)), func(object string) error {
		return putFile(c.remote, object, filepath.Join(dir, files[object]))
	})
	if err != nil {
		return err
	}
	for _, name := range tables {
		c.put[name] = true
	}
	list := strings.NewReader(strings.Join(tables, "\n"))
	return c.remote.Put(context.Background(), folder+"tables", list, list.Size())
}
