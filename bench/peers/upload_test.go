package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// uploadParams are parameters of a snapshot run that takes no time.
func uploadParams() parameters {
	p := smallParams()
	p.Goroutines, p.Reads = 1, 0
	p.Updates, p.Rounds, p.Remote = []int{10, 300}, 3, remoteDir
	p.Ops = uploadOps(p)
	return p
}

func TestUpload(t *testing.T) {
	for _, k := range allKinds() {
		if k.uploads == "" {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			p := uploadParams()
			if k.name == "hybridlog" {
				p.Remote = "delay:1ms"
			}
			base := t.TempDir()
			r := runner{tasks: []task{taskUpload}, params: p}
			m, err := r.runOne(t.Context(), k, base+"/store")
			if err != nil {
				t.Fatal(err)
			}
			wantEmpty(t, base)
			size := int64(p.Keys * (p.KeySize + p.ValueSize))
			if m.LoadSeconds <= 0 || m.FirstSeconds <= 0 || m.FirstBytes < size || m.AnonBytes <= 0 || len(m.Uploaded) != 2 {
				t.Fatalf("measured %+v", m)
			}
			for i, u := range m.Uploaded {
				most := int64(p.Rounds * p.Updates[i] * (p.KeySize + p.ValueSize))
				if u.Updates != p.Updates[i] || u.Snapshots != p.Rounds || u.ChangedBytes <= 0 || u.ChangedBytes > most {
					t.Errorf("%+v", u)
				}
				if u.Bytes < u.ChangedBytes || u.AfterBytes > u.Bytes || u.Requests < int64(p.Rounds) {
					t.Errorf("%+v", u)
				}
				if u.Cut.Median <= 0 || u.Cut.Longest < u.Cut.Median || u.Complete.Median < u.Cut.Median || u.Complete.Longest < u.Complete.Median {
					t.Errorf("snapshots took %+v and %+v", u.Cut, u.Complete)
				}
			}
		})
	}
}

// fakeUploader is a map whose snapshots are of 7 bytes, in two requests.
type fakeUploader struct {
	liar
	taken int64
	err   error
}

func (f *fakeUploader) snapshot(uint64) (func() error, error) {
	f.taken++
	return func() error { return f.err }, nil
}

func (f *fakeUploader) uploads() (bytes, requests int64) { return 7 * f.taken, 2 * f.taken }

func testUploadRun(t *testing.T, f *fakeUploader) *uploadRun {
	t.Helper()
	p := uploadParams()
	if _, err := load(f, p); err != nil {
		t.Fatal(err)
	}
	r := &uploadRun{store: f, of: f, snapshots: snapshots{of: f}, seen: make([]uint32, p.Keys)}
	r.Params, r.Dir = p, t.TempDir()
	for i := range p.Ops {
		r.ops = append(r.ops, draw(i%4)) // four keys, again and again
	}
	return r
}

func TestUploadCounts(t *testing.T) {
	f := &fakeUploader{liar: newLiar()}
	r := testUploadRun(t, f)
	var m measurement
	if err := r.measure(&m); err != nil {
		t.Fatal(err)
	}
	record := int64(r.Params.KeySize + r.Params.ValueSize)
	for i, u := range m.Uploaded {
		u.Cut, u.Complete = taken{}, taken{}
		want := uploadMeasurement{Updates: r.Params.Updates[i], Snapshots: 3, ChangedBytes: 3 * 4 * record, Bytes: 4 * 7, AfterBytes: 7, Requests: 4 * 2}
		if u != want {
			t.Errorf("got %+v, want %+v", u, want)
		}
	}
	if m.FirstBytes != 7 || len(m.Uploaded) != 2 || f.taken != 9 || r.done != r.Params.Ops {
		t.Errorf("measured %+v, %d snapshots, %d updates", m, f.taken, r.done)
	}
	if err := checkMixed(f, r.Params, r.ops); err != nil {
		t.Error(err)
	}
}

func TestUploadFails(t *testing.T) {
	f := &fakeUploader{liar: newLiar(), err: errors.New("broken")}
	if err := testUploadRun(t, f).measure(new(measurement)); !errors.Is(err, f.err) || !strings.Contains(err.Error(), "snapshot 1:") {
		t.Errorf("error %v", err)
	}
}

func TestSummariseUploads(t *testing.T) {
	fast := testResult(workSnapshot).Rows[1]
	if fast.OpsPerSecond != nil || fast.Ratios != nil || fast.Ratio != 0 || len(fast.Uploaded) != 2 || fast.FirstBytes.Median != 5e6 {
		t.Fatalf("row %+v", fast)
	}
	u := fast.Uploaded[1]
	if got := []float64{u.BytesPerByte.Median, u.BytesPerByte.Min, u.BytesPerByte.Max, u.Bytes.Median, u.Cut.Longest.Median}; !slices.Equal(got, []float64{5, 2, 10, 5000, 2e6}) {
		t.Errorf("%v of %+v", got, u)
	}
	if u.Updates != 1000 || u.Snapshots != 3 || u.Ratio != 4 || u.Ratios["slow"] != 20 {
		t.Errorf("row %+v", u)
	}
}
