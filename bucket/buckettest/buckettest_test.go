package buckettest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRunPasses also counts requests: on real storage they cost money.
func TestRunPasses(t *testing.T) {
	var used []*Faulty
	Run(t, func(*testing.T) bucket.Bucket {
		used = append(used, NewFaulty(bucket.NewMem(), nil))
		return used[len(used)-1]
	})
	requests := 0
	for _, f := range used {
		for _, c := range f.Calls() {
			if c.Op == "list" || bucket.CheckName(c.Name) == nil {
				requests++ // the others end before they are one
			}
		}
	}
	t.Log(requests, "requests")
	if requests > 1500 {
		t.Errorf("%d requests", requests)
	}
}

const brokenVariable = "BUCKETTEST_BROKEN"

// TestRunFails runs itself with buckets that break a promise each, and checks
// which tests notice.
func TestRunFails(t *testing.T) {
	if os.Getenv(brokenVariable) != "" {
		for name, b := range brokenBuckets {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				Run(t, func(*testing.T) bucket.Bucket { return b.open() })
			})
		}
		return
	}
	var run []string
	for name, b := range brokenBuckets {
		run = append(run, "^TestRunFails$/^"+name+"$/^("+strings.Join(b.fails, "|")+")$")
	}
	cmd := exec.Command(os.Args[0], "-test.run="+strings.Join(run, "|"), "-test.parallel=8")
	cmd.Env = append(os.Environ(), brokenVariable+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Error("all passed")
	}
	failed := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "--- FAIL: TestRunFails/"); ok {
			failed[strings.Fields(rest)[0]] = true
		}
	}
	for name, b := range brokenBuckets {
		for _, test := range b.fails {
			if !failed[name+"/"+test] {
				t.Errorf("%s passes %s", name, test)
			}
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

// broken is a Mem whose methods can be replaced.
type broken struct {
	*bucket.Mem
	put    func(m *bucket.Mem, ctx context.Context, name string, content io.ReaderAt, size int64) error
	get    func(m *bucket.Mem, ctx context.Context, name string) (io.ReadCloser, error)
	ranged func(m *bucket.Mem, ctx context.Context, name string, off, n int64) (io.ReadCloser, error)
	list   func(m *bucket.Mem, ctx context.Context, prefix string) iter.Seq2[bucket.Object, error]
	del    func(m *bucket.Mem, ctx context.Context, name string) error
}

func (b broken) Put(ctx context.Context, name string, content io.ReaderAt, size int64) error {
	if b.put != nil {
		return b.put(b.Mem, ctx, name, content, size)
	}
	return b.Mem.Put(ctx, name, content, size)
}

func (b broken) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if b.get != nil {
		return b.get(b.Mem, ctx, name)
	}
	return b.Mem.Get(ctx, name)
}

func (b broken) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if b.ranged != nil {
		return b.ranged(b.Mem, ctx, name, off, n)
	}
	return b.Mem.GetRange(ctx, name, off, n)
}

func (b broken) List(ctx context.Context, prefix string) iter.Seq2[bucket.Object, error] {
	if b.list != nil {
		return b.list(b.Mem, ctx, prefix)
	}
	return b.Mem.List(ctx, prefix)
}

func (b broken) Delete(ctx context.Context, name string) error {
	if b.del != nil {
		return b.del(b.Mem, ctx, name)
	}
	return b.Mem.Delete(ctx, name)
}

// changed is a list whose objects went through change.
func changed(list iter.Seq2[bucket.Object, error], change func([]bucket.Object) []bucket.Object) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		var all []bucket.Object
		for o, err := range list {
			if err != nil {
				yield(o, err)
				return
			}
			all = append(all, o)
		}
		for _, o := range change(all) {
			if !yield(o, nil) {
				return
			}
		}
	}
}

// listing is a broken bucket whose lists went through change.
func listing(change func([]bucket.Object) []bucket.Object) func() bucket.Bucket {
	return func() bucket.Bucket {
		return broken{Mem: bucket.NewMem(), list: func(m *bucket.Mem, ctx context.Context, prefix string) iter.Seq2[bucket.Object, error] {
			return changed(m.List(ctx, prefix), change)
		}}
	}
}

// reading is a broken bucket whose objects are read through body.
func reading(body func(context.Context, io.Reader) io.Reader) func() bucket.Bucket {
	return func() bucket.Bucket {
		return NewFaulty(bucket.NewMem(), func(Call) Fault { return Fault{Body: body} })
	}
}

// putting is a broken bucket with a Put of its own.
func putting(put func(m *bucket.Mem, ctx context.Context, name string, content io.ReaderAt, size int64) error) func() bucket.Bucket {
	return func() bucket.Bucket { return broken{Mem: bucket.NewMem(), put: put} }
}

var brokenBuckets = map[string]struct {
	open  func() bucket.Bucket
	fails []string
}{
	"replaces": {putting(func(m *bucket.Mem, ctx context.Context, name string, content io.ReaderAt, size int64) error {
		for {
			if err := m.Put(ctx, name, content, size); !errors.Is(err, fs.ErrExist) {
				return err
			}
			m.Delete(ctx, name)
		}
	}), []string{"Exist", "Race"}},
	"looks-first": {putting(func(m *bucket.Mem, ctx context.Context, name string, content io.ReaderAt, size int64) error {
		if r, err := m.Get(ctx, name); err == nil {
			r.Close()
			return fs.ErrExist
		}
		time.Sleep(time.Millisecond)
		for {
			if err := m.Put(ctx, name, content, size); !errors.Is(err, fs.ErrExist) {
				return err
			}
			m.Delete(ctx, name)
		}
	}), []string{"Race"}},
	"keeps-parts": {putting(func(m *bucket.Mem, ctx context.Context, name string, content io.ReaderAt, size int64) error {
		if size < 0 {
			return fs.ErrInvalid
		}
		b := make([]byte, size)
		n, err := content.ReadAt(b, 0)
		if n == len(b) {
			err = nil
		}
		return cmp.Or(m.Put(ctx, name, bytes.NewReader(b[:n]), int64(n)), err)
	}), []string{"BadContent"}},
	"shorter-than-said": {putting(func(m *bucket.Mem, ctx context.Context, name string, content io.ReaderAt, size int64) error {
		b, err := io.ReadAll(io.NewSectionReader(content, 0, max(size, 0)))
		return cmp.Or(err, m.Put(ctx, name, bytes.NewReader(b), int64(len(b))))
	}), []string{"BadContent"}},
	"reads-late": {putting(func(m *bucket.Mem, ctx context.Context, name string, content io.ReaderAt, size int64) error {
		done := make(chan error, 1)
		go func() { done <- m.Put(ctx, name, content, size) }()
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}), []string{"Cancel"}},
	"any-name": {putting(func(m *bucket.Mem, ctx context.Context, name string, content io.ReaderAt, size int64) error {
		if bucket.CheckName(name) != nil {
			name = "bad"
		}
		return m.Put(ctx, name, content, size)
	}), []string{"BadNames"}},
	"backwards": {listing(func(all []bucket.Object) []bucket.Object {
		slices.Reverse(all)
		return all
	}), []string{"List", "ListMany"}},
	"as-a-tree": {listing(func(all []bucket.Object) []bucket.Object {
		slices.SortFunc(all, func(a, b bucket.Object) int {
			return slices.Compare(strings.Split(a.Name, "/"), strings.Split(b.Name, "/"))
		})
		return all
	}), []string{"List"}},
	"one-page": {listing(func(all []bucket.Object) []bucket.Object { return all[:min(len(all), 1000)] }), []string{"ListMany"}},
	"no-sizes": {listing(func(all []bucket.Object) []bucket.Object {
		for i := range all {
			all[i].Size = 0
		}
		return all
	}), []string{"Contents", "List"}},
	"no-times": {listing(func(all []bucket.Object) []bucket.Object {
		for i := range all {
			all[i].Modified = time.Time{}
		}
		return all
	}), []string{"Contents", "List"}},
	"whole-folders": {func() bucket.Bucket {
		return broken{Mem: bucket.NewMem(), list: func(m *bucket.Mem, ctx context.Context, prefix string) iter.Seq2[bucket.Object, error] {
			return m.List(ctx, prefix[:strings.LastIndexByte(prefix, '/')+1])
		}}
	}, []string{"List", "Names"}},
	"short-ranges": {func() bucket.Bucket {
		return broken{Mem: bucket.NewMem(), ranged: func(m *bucket.Mem, ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
			r, err := m.GetRange(ctx, name, off, n)
			if err != nil {
				return nil, err
			}
			b, err := io.ReadAll(r)
			if err == io.ErrUnexpectedEOF {
				err = nil
			}
			return io.NopCloser(bytes.NewReader(b)), err
		}}
	}, []string{"Ranges"}},
	"ranges-to-the-end": {func() bucket.Bucket {
		return broken{Mem: bucket.NewMem(), ranged: func(m *bucket.Mem, ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
			r, err := m.Get(ctx, name)
			if err == nil && off > 0 {
				_, err = io.CopyN(io.Discard, r, off)
			}
			return r, err
		}}
	}, []string{"Ranges"}},
	"empty-if-missing": {func() bucket.Bucket {
		return broken{Mem: bucket.NewMem(), get: func(m *bucket.Mem, ctx context.Context, name string) (io.ReadCloser, error) {
			r, err := m.Get(ctx, name)
			if errors.Is(err, fs.ErrNotExist) {
				return io.NopCloser(strings.NewReader("")), nil
			}
			return r, err
		}}
	}, []string{"Missing", "Delete"}},
	"deletes-once": {func() bucket.Bucket {
		return broken{Mem: bucket.NewMem(), del: func(m *bucket.Mem, ctx context.Context, name string) error {
			r, err := m.Get(ctx, name)
			if err != nil {
				return err
			}
			r.Close()
			return m.Delete(ctx, name)
		}}
	}, []string{"Missing", "Delete"}},
	"deletes-nothing": {func() bucket.Bucket {
		return broken{Mem: bucket.NewMem(), del: func(_ *bucket.Mem, ctx context.Context, name string) error {
			return cmp.Or(ctx.Err(), bucket.CheckName(name))
		}}
	}, []string{"Delete", "List"}},
	"ignores-contexts": {func() bucket.Bucket {
		return broken{Mem: bucket.NewMem(),
			put: func(m *bucket.Mem, ctx context.Context, name string, content io.ReaderAt, size int64) error {
				return m.Put(context.WithoutCancel(ctx), name, content, size)
			},
			list: func(m *bucket.Mem, ctx context.Context, prefix string) iter.Seq2[bucket.Object, error] {
				return m.List(context.WithoutCancel(ctx), prefix)
			},
		}
	}, []string{"Ended", "Cancel"}},
	"wrong-bit": {reading(FlipBit(4000)), []string{"Contents", "Ranges"}},
	"cut-off":   {reading(EndAfter(4095, io.EOF)), []string{"Contents", "Ranges"}},
	"breaks":    {reading(EndAfter(4095, io.ErrUnexpectedEOF)), []string{"Contents", "Ranges"}},
}
