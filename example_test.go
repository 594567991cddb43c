package kvstore_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/bucket"
)

// tempDir stands for the directory that a program keeps its state in.
func tempDir() (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "kvstore-example-")
	if err != nil {
		log.Fatal(err)
	}
	return dir, func() { os.RemoveAll(dir) }
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func Example() {
	dir, remove := tempDir()
	defer remove()

	s, err := kvstore.Open(dir, kvstore.Options{})
	must(err)
	must(s.Set([]byte("apples"), []byte("3")))
	must(s.Set([]byte("pears"), nil))
	must(s.Delete([]byte("plums")))

	value, err := s.Get(nil, []byte("apples"))
	must(err)
	fmt.Printf("apples: %s\n", value)
	_, err = s.Get(nil, []byte("plums"))
	fmt.Println("plums:", err, errors.Is(err, kvstore.ErrNotFound))
	must(s.Close())
	// Output:
	// apples: 3
	// plums: key not found true
}

// A stream processor: state and input position are saved together, so that
// after a crash nothing is counted twice or left out.
func Example_stream() {
	dir, remove := tempDir()
	defer remove()
	ctx := context.Background()
	input := []string{"a", "b", "a", "c", "a", "b"}

	process := func(crashAfter int) {
		// After a crash the state may be newer than the last position that was
		// saved; at the last snapshot the two fit together.
		s, err := kvstore.Open(dir, kvstore.Options{Start: kvstore.LastSnapshot})
		must(err)
		base, _ := s.Base()
		position := 0
		if base.ID > 0 {
			position, err = strconv.Atoi(string(base.Meta))
			must(err)
		}
		fmt.Println("reading from", position)
		for ; position < min(len(input), crashAfter); position++ {
			must(s.Update([]byte(input[position]), func(dst, old []byte, found bool) ([]byte, kvstore.Op) {
				n, _ := strconv.Atoi(string(old))
				return strconv.AppendInt(dst, int64(n+1), 10), kvstore.Put
			}))
			if done := position + 1; done%2 == 0 {
				snap, err := s.Snapshot(ctx, uint64(done), []byte(strconv.Itoa(done)))
				must(err)
				must(snap.Wait(ctx))
			}
		}
		fmt.Print("counted")
		for word, count := range s.Scan(nil, nil).All() {
			fmt.Printf(" %s=%s", word, count)
		}
		fmt.Println()
		must(s.Close())
	}
	process(5) // stops after the fifth input, one behind the last snapshot
	process(6)
	// Output:
	// reading from 0
	// counted a=3 b=1 c=1
	// reading from 4
	// counted a=3 b=2 c=1
}

func ExampleStore_Update() {
	dir, remove := tempDir()
	defer remove()
	s, err := kvstore.Open(dir, kvstore.Options{})
	must(err)
	defer s.Close()

	// Append to a list, but keep it short.
	add := func(item string) {
		must(s.Update([]byte("list"), func(dst, old []byte, found bool) ([]byte, kvstore.Op) {
			if len(old) > 8 {
				return dst, kvstore.Remove
			}
			return append(append(dst, old...), item...), kvstore.Put
		}))
	}
	add("one ")
	add("two ")
	list, err := s.Get(nil, []byte("list"))
	fmt.Printf("%q %v\n", list, err)
	add("three ")
	add("four ")
	_, err = s.Get(nil, []byte("list"))
	fmt.Println(err)
	// Output:
	// "one two " <nil>
	// key not found
}

func ExampleStore_Apply() {
	dir, remove := tempDir()
	defer remove()
	s, err := kvstore.Open(dir, kvstore.Options{})
	must(err)
	defer s.Close()

	var b kvstore.Batch
	b.Set([]byte("alice"), []byte("90"))
	b.Set([]byte("bob"), []byte("110"))
	b.Delete([]byte("transfer"))
	must(s.Apply(&b)) // all of it or nothing
	fmt.Println(b.Len(), "writes")
	// Output: 3 writes
}

func ExampleStore_MultiGet() {
	dir, remove := tempDir()
	defer remove()
	s, err := kvstore.Open(dir, kvstore.Options{})
	must(err)
	defer s.Close()

	must(s.Set([]byte("a"), []byte("1")))
	must(s.Set([]byte("c"), []byte("3")))
	keys := [][]byte{[]byte("a"), []byte("b"), []byte("c")}
	sum := 0
	must(s.MultiGet(keys, func(i int, value []byte, found bool) {
		if found {
			n, _ := strconv.Atoi(string(value))
			sum += n
		}
	}))
	fmt.Println(sum)
	// Output: 4
}

func ExampleStore_Scan() {
	dir, remove := tempDir()
	defer remove()
	s, err := kvstore.Open(dir, kvstore.Options{})
	must(err)
	defer s.Close()

	for _, key := range []string{"user:1", "user:2", "item:7", "user:10"} {
		must(s.Set([]byte(key), nil))
	}
	users := s.Scan(kvstore.Prefix([]byte("user:")))
	for key := range users.All() {
		fmt.Printf("%s ", key)
	}
	must(users.Err())
	for key := range s.ScanReverse(nil, []byte("user:2")).All() {
		fmt.Printf("%s ", key)
	}
	// Output: user:1 user:10 user:2 user:10 user:1 item:7
}

func ExampleStore_Rollback() {
	dir, remove := tempDir()
	defer remove()
	ctx := context.Background()
	s, err := kvstore.Open(dir, kvstore.Options{})
	must(err)
	defer s.Close()

	must(s.Set([]byte("k"), []byte("old")))
	snap, err := s.Snapshot(ctx, 1, []byte("offset 42"))
	must(err)
	must(snap.Wait(ctx))
	must(s.Set([]byte("k"), []byte("new")))

	must(s.Rollback(ctx, kvstore.ID(1)))
	value, err := s.Get(nil, []byte("k"))
	must(err)
	base, exact := s.Base()
	fmt.Printf("%s, at snapshot %d (%s), exactly: %v\n", value, base.ID, base.Meta, exact)
	// Output: old, at snapshot 1 (offset 42), exactly: true
}

func ExampleStore_Prune() {
	dir, remove := tempDir()
	defer remove()
	ctx := context.Background()
	s, err := kvstore.Open(dir, kvstore.Options{Retain: kvstore.KeepAll})
	must(err)
	defer s.Close()

	for id := range uint64(5) {
		must(s.Set([]byte("k"), []byte{byte(id)}))
		snap, err := s.Snapshot(ctx, id+1, nil)
		must(err)
		must(snap.Wait(ctx))
	}
	report, err := s.Prune(ctx, kvstore.Policy{KeepLast: 2, DryRun: true})
	must(err)
	fmt.Println("would remove", report.IDs)
	report, err = s.Prune(ctx, kvstore.Policy{KeepLast: 2})
	must(err)
	fmt.Println("removed", report.IDs)
	// Output:
	// would remove [1 2 3]
	// removed [1 2 3]
}

func ExampleOpenSnapshot() {
	dir, remove := tempDir()
	defer remove()
	ctx := context.Background()
	s, err := kvstore.Open(dir, kvstore.Options{})
	must(err)
	defer s.Close()
	must(s.Set([]byte("k"), []byte("in the snapshot")))
	snap, err := s.Snapshot(ctx, 1, nil)
	must(err)
	must(snap.Wait(ctx))
	must(s.Set([]byte("k"), []byte("later")))

	// Usually in another process, beside the live store.
	view, err := kvstore.OpenSnapshot(ctx, dir, kvstore.LastSnapshot)
	must(err)
	defer view.Close()
	value, err := view.Get(nil, []byte("k"))
	must(err)
	fmt.Printf("%s\n", value)
	// Output: in the snapshot
}

// Snapshots go to a bucket; when the machine is lost, another one goes on from
// the last. The bucket here is a directory; s3.Open has others.
func ExampleRestore() {
	dir, remove := tempDir()
	defer remove()
	ctx := context.Background()
	remote, err := bucket.NewDir(filepath.Join(dir, "bucket"))
	must(err)

	first, err := kvstore.Open(filepath.Join(dir, "first"), kvstore.Options{Remote: remote})
	must(err)
	must(first.Set([]byte("counted"), []byte("1000")))
	snap, err := first.Snapshot(ctx, 1, []byte("line 1000"))
	must(err)
	must(snap.Wait(ctx)) // now it is in the bucket
	must(first.Set([]byte("counted"), []byte("1234")))

	// The first machine does not answer any more.
	must(kvstore.Restore(ctx, filepath.Join(dir, "second"), remote, kvstore.LastSnapshot, kvstore.RestoreOptions{}))
	second, err := kvstore.Open(filepath.Join(dir, "second"), kvstore.Options{Remote: remote})
	must(err)
	value, err := second.Get(nil, []byte("counted"))
	must(err)
	base, _ := second.Base()
	fmt.Printf("counted %s at %s\n", value, base.Meta)

	// It was alive after all, but it cannot get in the way.
	snap, err = first.Snapshot(ctx, 2, nil)
	must(err)
	fmt.Println("the first one is fenced:", errors.Is(snap.Wait(ctx), kvstore.ErrFenced))
	must(first.Close())
	must(second.Close())
	// Output:
	// counted 1000 at line 1000
	// the first one is fenced: true
}

func ExampleMigrate() {
	dir, remove := tempDir()
	defer remove()
	ctx := context.Background()

	s, err := kvstore.Open(filepath.Join(dir, "old"), kvstore.Options{Engine: kvstore.LSMTree{}})
	must(err)
	must(s.Set([]byte("key"), []byte("value")))
	snap, err := s.Snapshot(ctx, 7, []byte("offset 42"))
	must(err)
	must(snap.Wait(ctx))
	must(s.Close())

	view, err := kvstore.OpenSnapshot(ctx, filepath.Join(dir, "old"), kvstore.LastSnapshot)
	must(err)
	must(kvstore.Migrate(ctx, view, filepath.Join(dir, "new"), kvstore.MigrateOptions{Engine: kvstore.HybridLog{}}))
	must(view.Close())

	s, err = kvstore.Open(filepath.Join(dir, "new"), kvstore.Options{})
	must(err)
	value, err := s.Get(nil, []byte("key"))
	must(err)
	base, exact := s.Base()
	fmt.Printf("%s: %s, snapshot %d at %s, %v\n", s.Stats().Engine, value, base.ID, base.Meta, exact)
	must(s.Close())
	// Output: hybridlog: value, snapshot 7 at offset 42, true
}

// A new store is filled from elsewhere: in order of keys it is fastest. Until that
// is done the directory cannot be opened.
func ExampleCreate() {
	dir, remove := tempDir()
	defer remove()
	ctx := context.Background()
	words := func(yield func(key, value []byte) bool) {
		for i, word := range []string{"ant", "bee", "cat"} {
			if !yield([]byte(word), strconv.AppendInt(nil, int64(i), 10)) {
				return
			}
		}
	}

	var written int64
	err := kvstore.Create(filepath.Join(dir, "words"), kvstore.Options{}, func(s *kvstore.Store) (err error) {
		written, err = s.Load(ctx, words)
		return err
	})
	must(err)
	fmt.Println(written, "words")

	s, err := kvstore.Open(filepath.Join(dir, "words"), kvstore.Options{})
	must(err)
	value, err := s.Get(nil, []byte("cat"))
	must(err)
	fmt.Printf("cat: %s\n", value)
	must(s.Close())
	// Output:
	// 3 words
	// cat: 2
}

// Verify looks for damage: here a byte of the newest snapshot has changed on disk.
func ExampleVerify() {
	dir, remove := tempDir()
	defer remove()
	ctx := context.Background()
	s, err := kvstore.Open(dir, kvstore.Options{Engine: kvstore.MemOnly{}})
	must(err)
	must(s.Set([]byte("k"), []byte("value")))
	snap, err := s.Snapshot(ctx, 7, nil)
	must(err)
	must(snap.Wait(ctx))
	must(s.Close())

	files, err := filepath.Glob(filepath.Join(dir, "SNAPSHOT-*"))
	must(err)
	content, err := os.ReadFile(files[0])
	must(err)
	content[30] ^= 1
	must(os.WriteFile(files[0], content, 0o600))

	report, err := kvstore.Verify(ctx, dir, nil)
	must(err)
	for _, d := range report.Damage {
		fmt.Println(d.Offset, d.Reason, d.Snapshots)
	}
	// Output: 0 it is not the file that the manifest names [7]
}
