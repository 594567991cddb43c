package metrics

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/nikosgavalas/kvstore"
)

// TestEngines compares what is exported with what the store says, while it is
// open and when it is closed.
func TestEngines(t *testing.T) {
	for _, engine := range kvstore.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			s := open(t, t.TempDir(), kvstore.Options{Engine: engine})
			c := NewCollector("s", s)
			r := prometheus.NewPedanticRegistry()
			r.MustRegister(c)
			compare(t, r, s, map[string]float64{
				"kvstore_writes_total": 0, "kvstore_last_snapshot_id": 0, "kvstore_last_snapshot_timestamp_seconds": 0,
			})

			fill(t, s, 5)
			var b kvstore.Batch
			b.Set([]byte("x"), nil)
			b.Set([]byte("y"), []byte("value"))
			if err := s.Apply(&b); err != nil {
				t.Fatal(err)
			}
			before := time.Now().Add(-time.Second)
			snapshot(t, s, 7)
			fill(t, s, 3)
			compare(t, r, s, map[string]float64{
				"kvstore_keys": 7, "kvstore_writes_total": 10, "kvstore_snapshots": 1,
				"kvstore_snapshots_waiting": 0, "kvstore_last_snapshot_id": 7,
			})
			at := values(t, r)["kvstore_last_snapshot_timestamp_seconds"]
			if cut := time.UnixMilli(int64(at * 1000)); cut.Before(before) || cut.After(time.Now()) {
				t.Errorf("the last snapshot was cut at %v, and not since %v", cut, before)
			}
			if problems, err := testutil.CollectAndLint(c); err != nil || len(problems) > 0 {
				t.Errorf("%v %v", problems, err)
			}

			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			compare(t, r, s, map[string]float64{"kvstore_last_snapshot_id": 7, "kvstore_writes_total": 10, "kvstore_writes_durable_total": 10})
		})
	}
}

// TestCounters has writes that are taken back: the counters do not fall.
func TestCounters(t *testing.T) {
	for _, engine := range kvstore.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			s := open(t, t.TempDir(), kvstore.Options{Engine: engine})
			r := prometheus.NewPedanticRegistry()
			r.MustRegister(NewCollector("s", s))
			var durable float64
			check := func(writes, least float64) {
				t.Helper()
				v := values(t, r)
				if v["kvstore_writes_total"] != writes {
					t.Errorf("%v writes, want %v", v["kvstore_writes_total"], writes)
				}
				was := durable
				if durable = v["kvstore_writes_durable_total"]; durable < max(was, least) || durable > writes {
					t.Errorf("%v of %v writes are durable; before it were %v", durable, writes, was)
				}
			}
			fill(t, s, 100)
			check(100, 0)
			snapshot(t, s, 1)
			check(100, 100)
			for _, to := range []kvstore.Which{kvstore.LastSnapshot, kvstore.ID(0)} {
				fill(t, s, 20)
				was := values(t, r)["kvstore_writes_total"]
				if err := s.Rollback(context.Background(), to); err != nil {
					t.Fatal(err)
				}
				check(was, 100)
			}
			fill(t, s, 1)
			check(141, 100)
		})
	}
}

// TestOpenedAgain has stores that are opened again after a crash, which takes
// writes of some engines back: what Prometheus would add for a counter that
// fell is no more than those that were not durable.
func TestOpenedAgain(t *testing.T) {
	for _, engine := range kvstore.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			dir, crashed := t.TempDir(), filepath.Join(t.TempDir(), "d")
			s := open(t, dir, kvstore.Options{Engine: engine})
			first := NewCollector("s", s)
			r := prometheus.NewPedanticRegistry()
			r.MustRegister(first)
			fill(t, s, 100)
			snapshot(t, s, 1)
			fill(t, s, 20)
			if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}

			s = open(t, crashed, kvstore.Options{})
			again := NewCollector("s", s)
			if err := r.Register(again); !errors.As(err, &prometheus.AlreadyRegisteredError{}) {
				t.Errorf("a second collector of the same name: %v", err)
			}
			if !r.Unregister(first) {
				t.Error("the first collector was not registered")
			}
			r.MustRegister(again)
			v := values(t, r)
			if v["kvstore_writes_total"] > 20 || v["kvstore_writes_durable_total"] > v["kvstore_writes_total"] {
				t.Errorf("%v writes since, of which %v are durable", v["kvstore_writes_total"], v["kvstore_writes_durable_total"])
			}
			fill(t, s, 2)
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
			now := values(t, r)
			if want := v["kvstore_writes_total"] + 2; now["kvstore_writes_total"] != want || now["kvstore_writes_durable_total"] != want {
				t.Errorf("%v writes and %v durable ones, want %v", now["kvstore_writes_total"], now["kvstore_writes_durable_total"], want)
			}
		})
	}
}

// TestTwo has two stores, with different engines, in one registry.
func TestTwo(t *testing.T) {
	a := open(t, t.TempDir(), kvstore.Options{Engine: kvstore.HybridLog{}})
	b := open(t, t.TempDir(), kvstore.Options{Engine: kvstore.LSMTree{}})
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(NewCollector("a", a), NewCollector(`b "2"`, b))
	fill(t, a, 3)
	fill(t, b, 4)
	err := testutil.GatherAndCompare(r, strings.NewReader(`
# HELP kvstore_keys Keys that have a value; with LSMTree an estimate.
# TYPE kvstore_keys gauge
kvstore_keys{engine="hybridlog",store="a"} 3
kvstore_keys{engine="lsmtree",store="b \"2\""} 4
# HELP kvstore_tree_merge_debt_runs Runs by which merging is behind; if not 0 writers are slowed down.
# TYPE kvstore_tree_merge_debt_runs gauge
kvstore_tree_merge_debt_runs{engine="lsmtree",store="b \"2\""} 0
`), "kvstore_keys", "kvstore_tree_merge_debt_runs")
	if err != nil {
		t.Error(err)
	}
}

// TestTree has a tree with runs on several levels.
func TestTree(t *testing.T) {
	s := open(t, t.TempDir(), kvstore.Options{Engine: kvstore.LSMTree{MemtableBytes: 4 << 10, MaxRunsPerLevel: 2}})
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(NewCollector("s", s))
	for id := uint64(1); len(s.Stats().Tree.Levels) < 2; id++ {
		if id == 1000 {
			t.Fatalf("the tree does not grow: %+v", *s.Stats().Tree)
		}
		fill(t, s, 300)
		snapshot(t, s, id)
	}
	if _, err := s.Has([]byte("absent")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		st := s.Stats()
		got := values(t, r)
		if !reflect.DeepEqual(st, s.Stats()) && time.Now().Before(deadline) {
			continue // merging goes on
		}
		want := map[string]float64{
			"kvstore_tree_merge_debt_runs":      float64(st.Tree.Debt),
			"kvstore_tree_flushed_bytes_total":  float64(st.Tree.FlushedBytes),
			"kvstore_tree_filter_queries_total": float64(st.Tree.FilterAsked),
			"kvstore_tree_filter_hit_ratio":     st.Tree.FilterHitRate,
		}
		for _, l := range st.Tree.Levels {
			level := fmt.Sprintf("/%d", l.Level)
			want["kvstore_tree_level_runs"+level] = float64(l.Runs)
			want["kvstore_tree_level_records"+level] = float64(l.Records)
			want["kvstore_tree_level_bytes"+level] = float64(l.Bytes)
		}
		maps.DeleteFunc(got, func(name string, _ float64) bool { return !strings.HasPrefix(name, "kvstore_tree_") })
		if !maps.Equal(got, want) {
			t.Errorf("exported is %v, want %v", got, want)
		}
		if want["kvstore_tree_flushed_bytes_total"] == 0 || want["kvstore_tree_filter_queries_total"] == 0 || st.MergedBytes == 0 {
			t.Errorf("this test shows little: %v", want)
		}
		return
	}
}

// leftOut are the fields of Stats that are not exported, and why.
var leftOut = map[string]string{
	"Estimated":               "the help of kvstore_keys says for which engine it is one",
	"Applied":                 "it is Issued, with the engines that there are",
	"Tree.WriteAmplification": "it can be had from the counters of flushed and merged bytes",
}

// TestComplete changes every field of Stats: if that does not show in what is
// exported, the field was left out on purpose.
func TestComplete(t *testing.T) {
	stats := func() *kvstore.Stats {
		return &kvstore.Stats{Tree: &kvstore.TreeStats{Levels: make([]kvstore.LevelStats, 1)}}
	}
	plain := export(t, *stats())
	reasons := maps.Clone(leftOut)
	for path, field := range fields(reflect.TypeFor[kvstore.Stats]()) {
		st := stats()
		switch v := field(reflect.ValueOf(st).Elem()); {
		case v.CanInt():
			v.SetInt(7)
		case v.CanUint():
			v.SetUint(7)
		case v.CanFloat():
			v.SetFloat(7)
		case v.Kind() == reflect.Bool:
			v.SetBool(true)
		case v.Kind() == reflect.String:
			v.SetString("seven")
		default:
			t.Fatalf("teach this test how to change Stats.%s, a %v", path, v.Type())
		}
		exported := export(t, *st) != plain
		reason, left := reasons[path]
		delete(reasons, path)
		switch {
		case exported && left:
			t.Errorf("Stats.%s is exported, but listed as left out: %s", path, reason)
		case !exported && !left:
			t.Errorf("Stats.%s is not exported: do that, or list in leftOut why not", path)
		}
	}
	for path := range reasons {
		t.Errorf("leftOut lists Stats.%s, which there is not", path)
	}
}

// fields yields the fields of a struct, and of those in it, with their paths
// and with functions that find them in a value.
func fields(in reflect.Type) iter.Seq2[string, func(reflect.Value) reflect.Value] {
	return func(yield func(string, func(reflect.Value) reflect.Value) bool) {
		for i := range in.NumField() {
			f := in.Field(i)
			inner, find := f.Type, func(v reflect.Value) reflect.Value { return v.Field(i) }
			for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
				outer := find
				if inner.Kind() == reflect.Pointer {
					find = func(v reflect.Value) reflect.Value { return outer(v).Elem() }
				} else {
					find = func(v reflect.Value) reflect.Value { return outer(v).Index(0) }
				}
				inner = inner.Elem()
			}
			if inner.Kind() != reflect.Struct {
				if !yield(f.Name, find) {
					return
				}
				continue
			}
			for path, deeper := range fields(inner) {
				if !yield(f.Name+"."+path, func(v reflect.Value) reflect.Value { return deeper(find(v)) }) {
					return
				}
			}
		}
	}
}

// TestPackageComment compares the list in the package comment with what is
// exported.
func TestPackageComment(t *testing.T) {
	source, err := os.ReadFile("collector.go")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^//\t(kvstore_\w+) +(gauge|counter) `).FindAllStringSubmatch(string(source), -1) {
		listed[m[1]] = m[2]
	}
	exported := map[string]string{}
	text := export(t, kvstore.Stats{Tree: &kvstore.TreeStats{Levels: make([]kvstore.LevelStats, 1)}})
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\w+) (\w+)$`).FindAllStringSubmatch(text, -1) {
		exported[m[1]] = m[2]
	}
	if !maps.Equal(listed, exported) {
		t.Errorf("the package comment lists\n%v\nand exported is\n%v", listed, exported)
	}
}

// given collects one value of Stats.
type given struct {
	*collector
	stats kvstore.Stats
}

func (g given) Collect(ch chan<- prometheus.Metric) {
	g.collect(ch, g.stats, kvstore.SnapshotInfo{})
}

// export returns what is exported of some Stats.
func export(t *testing.T, st kvstore.Stats) string {
	t.Helper()
	c := &collector{labels: prometheus.Labels{"store": "s", "engine": st.Engine}}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(given{c, st})
	response := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(response, httptest.NewRequest("GET", "/", nil))
	if response.Code != http.StatusOK {
		t.Fatal(response.Body)
	}
	return response.Body.String()
}

// values returns what is exported of one store, by the name of the metric, and
// where there is one /LEVEL.
func values(t *testing.T, r prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				if l.GetName() == "level" {
					name += "/" + l.GetValue()
				}
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue() // one of them
		}
	}
	return got
}

// compare compares what is exported with what the store says, and with some
// values that are known.
func compare(t *testing.T, r prometheus.Gatherer, s *kvstore.Store, known map[string]float64) {
	t.Helper()
	// What the store does in the background must not come between.
	st, got := s.Stats(), values(t, r)
	for !reflect.DeepEqual(st, s.Stats()) {
		time.Sleep(time.Millisecond)
		st, got = s.Stats(), values(t, r)
	}
	want := map[string]float64{
		"kvstore_keys":                float64(st.Keys),
		"kvstore_memory_bytes":        float64(st.MemoryBytes),
		"kvstore_memory_budget_bytes": float64(st.BudgetBytes),
		"kvstore_disk_bytes":          float64(st.DiskBytes),
		"kvstore_pinned_bytes":        float64(st.PinnedBytes),
		"kvstore_merged_bytes_total":  float64(st.MergedBytes),
		"kvstore_snapshots":           float64(st.Snapshots),
		"kvstore_snapshots_waiting":   float64(st.Waiting),
	}
	maps.Copy(want, known)
	for name, value := range want {
		if v, ok := got[name]; !ok || v != value {
			t.Errorf("%s is %v (%t), want %v", name, v, ok, value)
		}
	}
}

func open(t *testing.T, dir string, o kvstore.Options) *kvstore.Store {
	t.Helper()
	s, err := kvstore.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, kvstore.ErrClosed) {
			t.Error(err)
		}
	})
	return s
}

// fill writes keys, each once.
func fill(t *testing.T, s *kvstore.Store, n int) {
	t.Helper()
	for i := range n {
		if err := s.Set(fmt.Appendf(nil, "key%d", i), fmt.Appendf(nil, "value %d", i)); err != nil {
			t.Fatal(err)
		}
	}
}

func snapshot(t *testing.T, s *kvstore.Store, id uint64) {
	t.Helper()
	snap, err := s.Snapshot(context.Background(), id, nil)
	if err == nil {
		err = snap.Wait(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
}
