//go:build unix

package vfs

import (
	"path/filepath"
	"runtime/debug"
	"testing"
)

// TestOSStoreToReadOnly stores to a read-only mapping, which must fault.
func TestOSStoreToReadOnly(t *testing.T) {
	name := filepath.ToSlash(t.TempDir()) + "/a"
	must(t, create(t, OS, name, "hello").Close())
	a, err := OS.Open(name)
	must(t, err)
	defer a.Close()
	m, err := a.(Mapper).Map(0, 5)
	must(t, err)
	defer m.Close()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() == nil {
			t.Error("the store did not fault")
		}
		wantFile(t, OS, name, "hello")
	}()
	m.Bytes()[0] = 'j'
}
