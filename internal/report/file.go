package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile writes the page to a file. It replaces an earlier page, whole, but
// no other file unless that is forced.
func (p Page) WriteFile(name string, force bool) (err error) {
	if !force {
		if err := replaceable(name); err != nil {
			return err
		}
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".report-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(p.Write(f), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// replaceable returns an error if there is a file of that name that is no page
// of ours.
func replaceable(name string) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	// The generator is named at the beginning.
	head, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return err
	}
	if !bytes.Contains(head, []byte(`<meta name="generator" content="`+generator+`">`)) {
		return fmt.Errorf("%s is not a page that kvstore report has written; choose another name, or replace it with --force", name)
	}
	return nil
}
