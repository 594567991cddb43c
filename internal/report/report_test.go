package report

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/results"
)

var update = flag.Bool("update", false, "rewrite the files in testdata, and the page of the published results")

// html returns a page.
func html(t *testing.T, r results.Results) string {
	t.Helper()
	var b bytes.Buffer
	ok(t, page(r).Write(&b))
	return b.String()
}

// TestGolden pins a page of the results in testdata, which are those of
// synthetic.some.
func TestGolden(t *testing.T) {
	dir, name := filepath.Join("testdata", "results"), filepath.Join("testdata", "report.html")
	made := t.TempDir()
	s := newSynthetic(t, made, 2)
	s.some()
	s.close()
	if *update {
		ok(t, os.RemoveAll(dir))
		ok(t, os.CopyFS(dir, os.DirFS(made)))
	}
	same(t, made, dir)
	r, err := results.Load(dir)
	ok(t, err)
	got := html(t, r)
	if *update {
		ok(t, os.WriteFile(name, []byte(got), 0o644))
	}
	want, err := os.ReadFile(name)
	ok(t, err)
	if got != string(want) {
		gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
		for i := range min(len(gotLines), len(wantLines)) {
			if gotLines[i] != wantLines[i] {
				t.Fatalf("the page is not that of %s; if it was to change, run the test with -update.\nline %d: %s\nwant    %s", name, i+1, gotLines[i], wantLines[i])
			}
		}
		t.Fatalf("the page has %d lines, %s has %d", len(gotLines), name, len(wantLines))
	}
}

// same fails unless two directories have the same files.
func same(t *testing.T, a, b string) {
	t.Helper()
	for _, dirs := range [][2]string{{a, b}, {b, a}} {
		files, err := os.ReadDir(dirs[0])
		ok(t, err)
		for _, f := range files {
			x, err := os.ReadFile(filepath.Join(dirs[0], f.Name()))
			ok(t, err)
			y, err := os.ReadFile(filepath.Join(dirs[1], f.Name()))
			ok(t, err)
			if !bytes.Equal(x, y) {
				t.Fatalf("%s is not what synthetic.some writes; run the test with -update", f.Name())
			}
		}
	}
}

// TestDeterministic: the same results are the same page.
func TestDeterministic(t *testing.T) {
	s := newSynthetic(t, t.TempDir(), 2)
	s.all()
	r := s.load()
	first := html(t, r)
	for range 3 {
		if html(t, r) != first {
			t.Fatal("the page changes from one time to the next")
		}
	}
}

var svg = regexp.MustCompile(`(?s)<figure id="([^"]+)">.*?</figure>`)

// TestFigures: each figure is well-formed, says what it shows, and has axes with
// labels and units, ticks, and a legend.
func TestFigures(t *testing.T) {
	s := newSynthetic(t, t.TempDir(), 2)
	s.all()
	found := svg.FindAllStringSubmatch(html(t, s.load()), -1)
	if len(found) < 100 {
		t.Fatalf("there are %d figures", len(found))
	}
	ids := map[string]bool{}
	for _, m := range found {
		figure, id := m[0], m[1]
		if ids[id] {
			t.Errorf("two figures are %s", id)
		}
		ids[id] = true
		for d := xml.NewDecoder(strings.NewReader(figure)); ; {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%v in %s", err, id)
			}
		}
		for what, pattern := range map[string]string{
			"title":       `<title id="` + id + `-title">[^<]+</title>`,
			"description": `<desc id="` + id + `-desc">[^<]{20,}</desc>`,
			"label":       `<text class="label"[^>]*>[^<]+</text>`,
			"ticks":       `(?s)<text class="tick".*<text class="tick"`,
			"legend":      `<ul class="legend" aria-label="Legend"><li><svg class="s\d".*?</svg>[^<]+</li>`,
			"content":     `<path class="line" d="M\d[^"]+L|<rect class="bar s\d"`,
		} {
			if !regexp.MustCompile(pattern).MatchString(figure) {
				t.Errorf("no %s in %s: %.600s", what, id, figure)
			}
		}
		// The measured axis names its unit, or counts.
		labels := regexp.MustCompile(`<text class="label"[^>]*>([^<]+)</text>`).FindAllStringSubmatch(figure, -1)
		if !slices.ContainsFunc(labels, func(l []string) bool { return strings.Contains(l[1], "(") }) {
			t.Errorf("no unit in %v", labels)
		}
		if bad := regexp.MustCompile(`NaN|Inf|="-?[\d.]+e[+-]\d+"|\d\.\d{4,}"`).FindString(figure); bad != "" {
			t.Errorf("%q in %s", bad, id)
		}
	}
}

// TestSelfContained: nothing in the page is elsewhere, and its policy says so.
func TestSelfContained(t *testing.T) {
	s := newSynthetic(t, t.TempDir(), 1)
	s.all()
	p := html(t, s.load())
	for _, bad := range []string{"http://", "https://", "url(", "@import", "<script", "<img", "<iframe", " style=", " onload", "javascript:", "ZgotmplZ"} {
		if strings.Contains(p, bad) {
			t.Errorf("%s is in the page", bad)
		}
	}
	for _, m := range regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(p, -1) {
		target, local := strings.CutPrefix(m[1], "#")
		if m[1] != "data:," && (!local || !strings.Contains(p, `id="`+target+`"`)) {
			t.Errorf("a link leads to %s", m[1])
		}
	}
	_, rest, _ := strings.Cut(p, "<style>")
	sheet, _, _ := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(sheet))
	if !strings.Contains(p, "default-src &#39;none&#39;") || !strings.Contains(p, strings.ReplaceAll(base64.StdEncoding.EncodeToString(sum[:]), "+", "&#43;")) {
		t.Error("the policy does not name the style sheet that is there")
	}
}

// TestEscapes: texts from results stay texts.
func TestEscapes(t *testing.T) {
	const evil = `<script>alert("1")</script>`
	s := newSynthetic(t, t.TempDir(), 1)
	for x := range 3 {
		s.add("x", evil, evil, results.At{evil: float64(x), "p": evil}, map[string]float64{evil + "_ns": 5, "p50_ns": 7})
		s.add("y", evil, evil, results.At{evil: evil + strings.Repeat("!", x)}, map[string]float64{"p50_ns": 7})
	}
	r := s.load()
	r.Series = append(r.Series, results.Series{
		Experiment: evil, Contender: evil, Phase: evil, Step: 1,
		Values: map[string][]float64{evil: {1, 2}}, Marks: []results.Mark{{What: evil}},
	})
	r.Environments[0].CPU, r.Environments[0].Settings = evil, map[string]string{evil: evil}
	pg := page(r)
	pg.Experiments, pg.Repeat = []Experiment{{Name: "x", Title: evil, Question: evil, Differs: evil}}, []string{evil}
	var b bytes.Buffer
	ok(t, pg.Write(&b))
	if strings.Contains(b.String(), "<script") {
		at := strings.Index(b.String(), "<script")
		t.Errorf("a text became a script: %s", b.String()[max(0, at-200):at+50])
	}
	if n := strings.Count(b.String(), "&lt;script&gt;"); n < 50 {
		t.Errorf("only %d of the texts are there", n)
	}
}

// TestFromData changes figures: the page says so where it decides by them.
func TestFromData(t *testing.T) {
	s := newSynthetic(t, t.TempDir(), 3)
	s.all()
	r := s.load()
	before := html(t, r)
	change := func(experiment, contender, phase, value string, factor float64) string {
		c := r
		c.Measurements = slices.Clone(r.Measurements)
		changed := 0
		for i, m := range c.Measurements {
			if m.Experiment == experiment && m.Contender == contender && m.Phase == phase {
				values := map[string]float64{}
				for name, v := range m.Values {
					values[name] = v
				}
				values[value] *= factor
				c.Measurements[i].Values = values
				changed++
			}
		}
		if changed == 0 {
			t.Fatalf("nothing to change in %s", experiment)
		}
		return html(t, c)
	}
	section := func(p, id string) string {
		_, rest, _ := strings.Cut(p, `<section id="`+id+`"`)
		part, _, _ := strings.Cut(rest, "</section>")
		return part
	}
	for _, c := range []struct {
		experiment, contender, phase, value string
		factor                              float64
		in                                  string // what is in the page only afterwards
	}{
		{"memory", "LSMTree", "state", "rss_bytes", 100, `refuted</strong> LSMTree uses the least memory`},
		{"dataflow", "LSMTree", "transactions", "recovery_seconds", 50, `refuted</strong> LSMTree recovers fastest`},
		{"dataflow", "AppendLog", "transactions", "snapshot_seconds", 50, `refuted</strong> AppendLog takes snapshots fastest`},
		{"compare-write", "HybridLog", "paced writes", "p50_ns", 50, `refuted</strong> HybridLog writes fastest`},
		{"compare-read", "HybridLog", "paced reads", "p50_ns", 50, `refuted</strong> HybridLog reads fastest`},
	} {
		after := change(c.experiment, c.contender, c.phase, c.value, c.factor)
		if strings.Contains(before, c.in) || !strings.Contains(after, c.in) {
			t.Errorf("%s of %s times %v: %s", c.value, c.experiment, c.factor, section(after, "findings"))
		}
		if section(before, c.experiment) == section(after, c.experiment) {
			t.Errorf("%s of %s times %v: its section stays the same", c.value, c.experiment, c.factor)
		}
	}
	if after := change("memory", "LSMTree", "state", "rss_bytes", 100); section(after, "verdict") == section(before, "verdict") {
		t.Error("the verdicts do not come from the data")
	}
}

// TestNothingMeasured: what is missing is called that, and nobody wins.
func TestNothingMeasured(t *testing.T) {
	s := newSynthetic(t, t.TempDir(), 1)
	s.add("other", "LSMTree", "", nil, map[string]float64{"ops_per_second": 5})
	p := html(t, s.load())
	if strings.Contains(p, `class="best"`) || strings.Contains(p, `class="answer confirmed"`) || strings.Contains(p, `class="answer refuted"`) {
		t.Error("there is a verdict without data")
	}
	if n := strings.Count(p, notMeasured); n < len(uses)+14 {
		t.Errorf("not measured is said %d times", n)
	}
}

// TestOdd has results of shapes that no experiment has.
func TestOdd(t *testing.T) {
	s := newSynthetic(t, t.TempDir(), 1)
	s.add("zeros", "A", "", results.At{"n": 0.0}, map[string]float64{"x_ratio": 0, "p50_ns": 0})
	s.add("zeros", "A", "", results.At{"n": 1.0}, map[string]float64{"x_ratio": 0, "p50_ns": 0})
	s.add("negative", "A", "", results.At{"n": -1.0}, map[string]float64{"x_seconds": -5})
	s.add("negative", "A", "", results.At{"n": 1.0}, map[string]float64{"x_seconds": 5})
	s.add("mixed", "A", "", results.At{"n": "x"}, map[string]float64{"x": 1})
	s.add("mixed", "A", "", results.At{"n": 1.0, "m": 2.0}, map[string]float64{"x": 1})
	s.add("mixed", "A", "", nil, map[string]float64{"x": 1})
	s.add("gaps", "LSMTree", "", results.At{"n": 1.0}, map[string]float64{"p50_ns": 1})
	s.add("gaps", "HybridLog", "", results.At{"n": 2.0}, map[string]float64{"p99_ns": 1})
	s.add("no-values", "LSMTree", "", nil, nil)
	s.add("gaps", "only", "", results.At{"n": 2.0}, map[string]float64{"": 1})
	r := s.load()
	r.Series = append(r.Series,
		results.Series{Experiment: "series", Step: 0, Values: map[string][]float64{"x": {1, 2}}},
		results.Series{Experiment: "series", Step: 1, Values: map[string][]float64{"x": {}}},
		results.Series{Experiment: "series", Step: 1, Values: map[string][]float64{"ops_per_second": {0, 0, 0}}, Marks: []results.Mark{{Seconds: 99, What: "late"}}},
	)
	p := html(t, r)
	for _, m := range svg.FindAllString(p, -1) {
		if bad := regexp.MustCompile(`NaN|Inf`).FindString(m); bad != "" {
			t.Errorf("%s in %.200s", bad, m)
		}
	}
	// A page without anything.
	html(t, results.Results{})
}

func TestWarnings(t *testing.T) {
	a := results.Environment{CPU: "a", Cores: 2, Revision: "1", Settings: map[string]string{"scale": "1"}}
	b, c, d, e, peers := a, a, a, a, a
	b.CPU = "b"
	c.Revision = "2"
	d.Modified = true
	e.Settings = map[string]string{"scale": "0.02"}
	peers.Settings = nil // it has them in its points
	for _, test := range []struct {
		all  []results.Environment
		says []string
	}{
		{nil, []string{"do not say"}},
		{[]results.Environment{a, a}, nil},
		{[]results.Environment{a, peers}, nil},
		{[]results.Environment{a, b}, []string{"several machines"}},
		{[]results.Environment{a, c}, []string{"several revisions"}},
		{[]results.Environment{d}, []string{"built with changes"}},
		{[]results.Environment{a, e}, []string{"several sizes", "fewer keys"}},
	} {
		_, got := machines(test.all)
		if len(got) != len(test.says) {
			t.Errorf("%v: %q, want %q", test.all, got, test.says)
			continue
		}
		for i, says := range test.says {
			if !strings.Contains(got[i], says) {
				t.Errorf("%q does not say %q", got[i], says)
			}
		}
	}
}

func TestWriteFile(t *testing.T) {
	s := newSynthetic(t, t.TempDir(), 1)
	s.some()
	p := page(s.load())
	dir := t.TempDir()
	name := filepath.Join(dir, "report.html")
	ok(t, p.WriteFile(name, false))
	ok(t, p.WriteFile(name, false)) // its own
	for _, other := range []string{"", "mine", strings.Repeat(" ", 2000) + `<meta name="generator" content="kvstore report">`} {
		ok(t, os.WriteFile(name, []byte(other), 0o666))
		if err := p.WriteFile(name, false); err == nil {
			t.Errorf("%.10q was replaced", other)
		}
		if content, err := os.ReadFile(name); err != nil || string(content) != other {
			t.Errorf("%.10q became %.10q, %v", other, content, err)
		}
	}
	ok(t, p.WriteFile(name, true))
	if err := p.WriteFile(dir, true); err == nil {
		t.Error("a directory was replaced")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		name  string
		value float64
		want  string
	}{
		{"p50_ns", 0, "0 ns"}, {"p50_ns", 1, "1 ns"}, {"p50_ns", 999, "999 ns"}, {"p50_ns", 1234, "1.23 µs"}, {"max_ns", 2.5e9, "2.5 s"},
		{"open_seconds", 0.0123, "12.3 ms"}, {"cpu_seconds", 90, "90 s"},
		{"rss_bytes", 3 << 20, "3 MiB"}, {"rss_bytes", 1500, "1.46 KiB"}, {"rss_bytes", 5000, "5 kB"}, {"rss_bytes_per_key", 16.25, "16.2 B /key"},
		{"ops_per_second", 1.5e6, "1.5 M op/s"}, {"ops_per_second", 12, "12 op/s"}, {"ops", 1e6, "1M"}, {"runs", 16, "16"},
		{"map_ratio", 2.345, "2.35 ×"}, {"allocs_per_op", 0.004, "0.004 /op"}, {"x", 123456e12, "123456000G"},
	} {
		got := strings.NewReplacer("\u00a0", " ", "\u202f", "").Replace(format(c.name, c.value))
		if got != c.want {
			t.Errorf("%s %v is %q, want %q", c.name, c.value, got, c.want)
		}
	}
}

func TestChange(t *testing.T) {
	of := func(vs ...float64) results.Spread { return results.SpreadOf(vs) }
	for _, c := range []struct {
		from, to results.Spread
		sign     int
		says     string
	}{
		{of(100), of(104), 0, "did not change beyond chance"},
		{of(100), of(110), 1, "grew by 10%"},
		{of(100), of(70), -1, "fell by 30%"},
		{of(100), of(250), 1, "grew 2.5 times"},
		{of(90, 100, 120), of(105, 130, 140), 0, "did not change"},
		{of(90, 100, 104), of(105, 130, 140), 1, "grew by 30%"},
		{of(0), of(0), 0, "did not change"},
	} {
		got := change{c.from, c.to}
		if got.sign() != c.sign || !strings.HasPrefix(got.describe("p50_ns"), c.says) {
			t.Errorf("%v to %v: %d, %s", c.from, c.to, got.sign(), got.describe("p50_ns"))
		}
	}
}
