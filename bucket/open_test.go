package bucket_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/bucket"
)

func TestOpen(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the paths are those of Unix")
	}
	const home, working = "/var/backup", "file:///var/backup"
	for _, c := range []struct {
		url  string
		want string // what String is, or a part of the error
	}{
		{working, working},
		{"FILE://" + home, working},
		{working + "/", working},
		{"file:///var/../var//backup", working},
		{"file:///var/b%61ckup", working},
		{"file:///var/b ckup", "file:///var/b%20ckup"},
		{"file:///var/%3F%23%25", "file:///var/%3F%23%25"},
		{"file:///var/a+b", "file:///var/a+b"},
		{"file:///var/%C3%A9", "file:///var/%C3%A9"},
		{"mem://", "mem://"},
		{"mem://x-1.y", "mem://x-1.y"},
		{"MEM://x", "mem://x"},

		{"", "file:///var/backup"},
		{home, "file:///var/backup"},
		{"./secret", "file:///var/backup"},
		{"file:/secret", "file:///var/backup"},
		{"file:secret", "file:///var/backup"},
		{"file://", "without a path"},
		{"file:///", "without a path"},
		{"file://secret", "third slash"},
		{"file://secret/backup", "third slash"},
		{"file://localhost/secret", "third slash"},
		{"file://user:secret@host/backup", "third slash"},
		{"file://./secret", "third slash"},
		{"file:///backup?key=secret", "no parameters"},
		{"file:///backup?", "no parameters"},
		{"file:///backup#secret", "no parameters"},
		{"file:///secret%", "malformed"},
		{"file:///secret%zz", "malformed"},
		{"file:///secret%00", "malformed"},
		{"mem://a/secret", "mem:// takes a name"},
		{"mem://user:secret@a", "mem:// takes a name"},
		{"mem://a?secret", "mem:// takes a name"},
		{"mem://a#secret", "mem:// takes a name"},
		{"mem://%41", "mem:// takes a name"},
		{"mem:secret", "file:///var/backup"},
		{"s3://key:secret@bucket/prefix", "import it and call s3.Open"},
		{"S3://key:se/cret@bucket", "import it and call s3.Open"},
		{"https://user:secret@host/", "scheme of the URL is unknown"},
		{"user:secret@s3://bucket", "scheme of the URL is unknown"},
		{"://secret", "scheme of the URL is unknown"},
		{"user:secret@host", "file:///var/backup"},
		{"\x7fsecret", "file:///var/backup"},
	} {
		b, err := bucket.Open(c.url)
		if err == nil {
			if b.String() != c.want {
				t.Errorf("Open(%q) = %v, want %v", c.url, b, c.want)
			}
			continue
		}
		if b != nil {
			t.Errorf("Open(%q) returned %v and an error", c.url, b)
		}
		if text := err.Error(); !strings.HasPrefix(text, "bucket: ") || !strings.Contains(text, c.want) || strings.Contains(text, "secret") || strings.Contains(text, "cret@") {
			t.Errorf("Open(%q): %v, want %q", c.url, err, c.want)
		}
	}
}

func TestOpenDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b%20?#")
	if runtime.GOOS == "windows" {
		dir = filepath.Join(t.TempDir(), "a b%20#")
	}
	d := newDir(t, dir)
	put(t, d, "x", "1")
	b, err := bucket.Open(d.String())
	must(t, err)
	if got := get(t, b, "x"); got != "1" {
		t.Errorf("%v has %q", b, got)
	}
	if _, err := bucket.Open(d.String() + "/x"); err == nil {
		t.Error("a file was opened")
	}
}

func TestOpenMem(t *testing.T) {
	mem := func(url string) bucket.Bucket {
		b, err := bucket.Open(url)
		must(t, err)
		return b
	}
	put(t, mem("mem://open-test"), "a", "shared")
	defer mem("mem://open-test").Delete(context.Background(), "a") // for -count
	if got := get(t, mem("mem://open-test"), "a"); got != "shared" {
		t.Errorf("got %q", got)
	}
	wantNames(t, mem("mem://open-test-2"))
	wantNames(t, bucket.NewMem())
	put(t, mem("mem://"), "open-test", "")
	wantNames(t, mem("mem://"), "open-test")
	must(t, mem("mem://").Delete(t.Context(), "open-test"))
}

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "bucket")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	b, err := bucket.Open("file://" + dir)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	for _, content := range []string{"first", "second"} {
		err := b.Put(ctx, "notes/today", strings.NewReader(content), int64(len(content)))
		fmt.Println(content, err)
	}
	for o, err := range b.List(ctx, "notes/") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(o.Name, o.Size)
	}
	// Output:
	// first <nil>
	// second put notes/today: file already exists
	// notes/today 5
}
