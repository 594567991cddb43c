package results

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sample(at float64, rep int, p99 float64) Measurement {
	return Measurement{Contender: "LSMTree", At: At{"runs": at, "distribution": "Zipfian"}, Phase: "writes", Rep: rep, Values: map[string]float64{"p99_ns": p99}}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestResume has the file cut off at every byte: whole lines stay and are known,
// the rest goes, and what is written next is read.
func TestResume(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	w, err := Open(dir, "lsm-runs")
	ok(t, err)
	ok(t, w.Environment(Environment{Time: time.Unix(7, 0).UTC(), OS: "linux"}))
	ok(t, w.Measurement(sample(2, 0, 10)))
	ok(t, w.Series(Series{Contender: "LSMTree", Step: 1, Values: map[string][]float64{"ops_per_second": {1, 2}}, Marks: []Mark{{Seconds: 1, What: "merge"}}}))
	ok(t, w.Close())
	path := filepath.Join(dir, "lsm-runs"+Suffix)
	content, err := os.ReadFile(path)
	ok(t, err)
	for cut := range len(content) + 1 {
		ok(t, os.WriteFile(path, content[:cut], 0o666))
		lines := strings.Count(string(content[:cut]), "\n")
		w, err := Open(dir, "lsm-runs")
		ok(t, err)
		if w.Has(sample(2, 0, 0)) != (lines >= 2) || w.Has(sample(2, 1, 0)) || w.Has(sample(3, 0, 0)) {
			t.Fatalf("cut at %d: what is there is not known", cut)
		}
		ok(t, w.Measurement(sample(3, 0, 5)))
		if !w.Has(sample(3, 0, 0)) {
			t.Fatal("what was written is not known")
		}
		ok(t, w.Close())
		r, err := Load(dir)
		ok(t, err)
		if len(r.Environments) != min(1, lines) || len(r.Measurements) != 1+min(1, max(0, lines-1)) || len(r.Series) != max(0, lines-2) {
			t.Fatalf("cut at %d: loaded %+v", cut, r)
		}
		if last := r.Measurements[len(r.Measurements)-1]; last.Experiment != "lsm-runs" || last.At.Key() != "distribution=Zipfian runs=3" {
			t.Fatalf("loaded %+v", last)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "no results") {
		t.Errorf("an empty directory: %v", err)
	}
	for content, says := range map[string]string{
		"{}\n":                        `line 1: no results of a benchmark: the kind "" is not known`,
		"not json\n":                  "line 1",
		`{"kind":"series"}` + "\n{\n": "line 2",
	} {
		ok(t, os.WriteFile(filepath.Join(dir, "x"+Suffix), []byte(content), 0o666))
		if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", content, err, says)
		}
		if _, err := Open(dir, "x"); err == nil {
			t.Errorf("%q was opened for writing", content)
		}
	}
}

func TestGroups(t *testing.T) {
	got := Groups([]Measurement{sample(2, 0, 30), sample(3, 0, 1), sample(2, 1, 10), sample(2, 2, 20), sample(3, 1, 4)})
	want := []map[string]Spread{
		{"p99_ns": {Median: 20, Min: 10, Max: 30, Reps: 3}},
		{"p99_ns": {Median: 2.5, Min: 1, Max: 4, Reps: 2}},
	}
	if len(got) != 2 || !reflect.DeepEqual(got[0].Values, want[0]) || !reflect.DeepEqual(got[1].Values, want[1]) {
		t.Errorf("groups %+v", got)
	}
	if n, ok := got[1].At.Number("runs"); n != 3 || !ok {
		t.Errorf("runs is %v, %v", n, ok)
	}
}

func TestSpreadOf(t *testing.T) {
	for _, test := range []struct {
		xs   []float64
		want Spread
	}{
		{[]float64{3}, Spread{3, 3, 3, 1}},
		{[]float64{4, 1}, Spread{2.5, 1, 4, 2}},
		{[]float64{9, 1, 2}, Spread{2, 1, 9, 3}},
		{[]float64{4, 3, 1, 2}, Spread{2.5, 1, 4, 4}},
	} {
		before := fmt.Sprint(test.xs)
		if got := SpreadOf(test.xs); got != test.want {
			t.Errorf("spread of %v is %v, want %v", test.xs, got, test.want)
		}
		if fmt.Sprint(test.xs) != before {
			t.Errorf("the measurements were put in order: %v", test.xs)
		}
	}
}
