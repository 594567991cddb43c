package bucket_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/bucket/buckettest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMem(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket { return bucket.NewMem() }, 1<<20-1, 1<<20, 1<<20+1)
}

func TestDir(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket { return newDir(t, t.TempDir()) }, 1<<20-1, 1<<20, 1<<20+1)
}

func newDir(t *testing.T, path string) *bucket.Dir {
	t.Helper()
	d, err := bucket.NewDir(path)
	must(t, err)
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCheckName(t *testing.T) {
	for name, good := range map[string]bool{
		"a": true, "a/b": true, "AZaz09-._": true, "...": true, ".a/b.": true, strings.Repeat("a", 512): true,
		"": false, "/": false, "a/": false, "/a": false, "a//b": false, ".": false, "a/./b": false, "..": false, "a/..": false,
		"~": false, "a b": false, "a\\b": false, "\u00e4": false, "a\x00": false, strings.Repeat("a", 513): false,
	} {
		err := bucket.CheckName(name)
		if (err == nil) != good {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
		if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Errorf("CheckName(%q) does not name it: %v", name, err)
		}
	}
}
