package bucket

import (
	"context"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// List implements Bucket. It holds the names of one folder in memory, and of
// those above it.
func (d *Dir) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	folder := prefix[:strings.LastIndexByte(prefix, '/')+1]
	return func(yield func(Object, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(Object{}, err)
			return
		}
		if folder == "" || CheckName(strings.TrimSuffix(folder, "/")) == nil {
			d.walk(ctx, folder, prefix, yield)
		}
	}
}

// walk yields the objects of a folder, "" or a name that ends in a slash, and of
// those below it. It returns false when there is to be no more.
func (d *Dir) walk(ctx context.Context, folder, prefix string, yield func(Object, error) bool) bool {
	names, entries, err := d.read(ctx, folder, prefix)
	if err != nil {
		yield(Object{}, &fs.PathError{Op: "list", Path: prefix, Err: err})
		return false
	}
	for _, name := range names {
		if strings.HasSuffix(name, "/") {
			if !d.walk(ctx, name, prefix, yield) {
				return false
			}
			continue
		}
		if err := ctx.Err(); err != nil {
			yield(Object{}, err)
			return false
		}
		info, err := entries[name].Info()
		if missing(err) {
			continue // deleted meanwhile
		}
		if err != nil {
			yield(Object{}, &fs.PathError{Op: "list", Path: prefix, Err: err})
			return false
		}
		if info.Mode().IsRegular() && !yield(Object{Name: name, Size: info.Size(), Modified: info.ModTime()}, nil) {
			return false
		}
	}
	return true
}

// read returns the objects and the folders in a folder that a List of prefix is
// to have, in order. The slash after folders puts them where their objects
// belong: "a/b" is after "a.b", though "a" is before it.
func (d *Dir) read(ctx context.Context, folder, prefix string) (names []string, entries map[string]fs.DirEntry, err error) {
	f, err := os.Open(filepath.Join(d.root, filepath.FromSlash(folder)))
	if missing(err) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	entries = map[string]fs.DirEntry{}
	for {
		some, err := f.ReadDir(1000)
		for _, e := range some {
			name := folder + e.Name()
			if CheckName(name) != nil {
				continue
			}
			if e.IsDir() {
				name += "/"
			}
			if strings.HasPrefix(name, prefix) {
				names = append(names, name)
				entries[name] = e
			}
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == io.EOF || missing(err) {
			slices.Sort(names)
			return names, entries, nil
		}
		if err != nil {
			return nil, nil, err
		}
	}
}
