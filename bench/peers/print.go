package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/nikosgavalas/kvstore/internal/bench"
)

// writeJSON writes a value, indented.
func writeJSON(w io.Writer, value any) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(value)
}

// writeText writes what was measured for people: what was run, the settings,
// a line for each store, and how the stores compare with each other.
func (r result) writeText(w io.Writer) error {
	var out strings.Builder
	p := r.Parameters
	fmt.Fprintf(&out, "%s: %s keys of %d bytes, values of %s, memory %s, ",
		r.Work, humanize.Comma(int64(p.Keys)), p.KeySize, bytesText(int64(p.ValueSize)), bytesText(p.Memory))
	switch r.Work {
	case workRecovery:
		how := "closed"
		if r.Crash {
			how = "killed after the last write"
		}
		fmt.Fprintf(&out, "loaded and %s, then opened", how)
	case workMixed:
		fmt.Fprintf(&out, "%s operations, %g%% reads, %s, %s",
			humanize.Comma(int64(p.Ops)), 100*p.Reads, p.Distribution, counted(p.Goroutines, "goroutine"))
		if p.Batch > 1 {
			fmt.Fprintf(&out, ", %d at once", p.Batch)
		}
	case workLatency:
		fmt.Fprintf(&out, "Sets for %g s at each rate, %s, %s, snapshots %s",
			p.Seconds, p.Distribution, counted(p.Goroutines, "goroutine"), everyText(p.SnapshotEvery))
		if p.Remote != "" {
			fmt.Fprintf(&out, ", uploaded to %s", p.Remote)
		}
	case workSnapshot:
		fmt.Fprintf(&out, "%s snapshots after each number of updates, %s, uploaded to %s", humanize.Comma(int64(p.Rounds)), p.Distribution, p.Remote)
	case workScan:
		fmt.Fprintf(&out, "scans of %d keys and of all, about %s keys in each way", shortScan, humanize.Comma(int64(p.Ops)))
	default:
		fmt.Fprintf(&out, "%s updates, %s, %s", humanize.Comma(int64(p.Ops)), p.Distribution, counted(p.Goroutines, "goroutine"))
	}
	fmt.Fprintf(&out, "\nmedians of %s, ratios to %s; %s, %s, %s\n\n",
		counted(r.Reps, "repetition"), r.Reference, r.Environment.CPU, counted(r.Environment.Cores, "core"), r.Environment.Go)
	writeInfos(&out, infos(r.Rows))
	compared := "times as fast as"
	switch r.Work {
	case workRecovery:
		r.writeRecovery(&out)
	case workLatency:
		if p.Remote != "" {
			writeUploads(&out, infos(r.Rows))
		} else {
			writeSnapshots(&out, infos(r.Rows))
		}
		r.writeMaximum(&out)
		r.writeLoads(&out)
		compared = "maximum, " + compared
	case workSnapshot:
		writeUploads(&out, infos(r.Rows))
		r.writeUploaded(&out)
	case workScan:
		writeScans(&out, infos(r.Rows))
		r.writeScanned(&out)
		r.writeSizes(&out)
	default:
		if p.Batch > 1 {
			writeBatches(&out, infos(r.Rows))
		}
		r.writeOps(&out)
		r.writeTimed(&out)
	}
	switch r.Work {
	case workScan:
		r.writeScanMatrices(&out)
	case workSnapshot:
		r.writeUploadMatrices(&out)
	default:
		writeMatrix(&out, compared, r.speeds(row.speed))
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// speeds returns how fast each store is at something.
func (r result) speeds(of func(r row) float64) []speed {
	var speeds []speed
	for _, row := range r.Rows {
		speeds = append(speeds, speed{row.Name, of(row)})
	}
	return speeds
}

func infos(rows []row) []storeInfo {
	var infos []storeInfo
	for _, r := range rows {
		infos = append(infos, r.storeInfo)
	}
	return infos
}

// writeInfos writes the class and the settings of stores.
func writeInfos(w io.Writer, infos []storeInfo) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	seen := make(map[class]bool)
	for _, s := range infos {
		fmt.Fprintf(t, "%s\t%s\t%s\n", s.Name, s.Class, s.Settings)
		seen[s.Class] = true
	}
	_ = t.Flush() // a strings.Builder or a buffer does not fail
	for c := durable; c >= nothing; c-- {
		if seen[c] {
			fmt.Fprintf(w, "%s: %s\n", c, c.meaning())
		}
	}
	fmt.Fprintln(w)
}

// writeSnapshots writes how stores take snapshots.
func writeSnapshots(w io.Writer, infos []storeInfo) {
	writeHows(w, "snapshots in latency:", infos, func(s storeInfo) string { return s.Snapshots })
}

// writeUploads writes how stores upload snapshots.
func writeUploads(w io.Writer, infos []storeInfo) {
	writeHows(w, "how snapshots are uploaded:", infos, func(s storeInfo) string { return s.Uploads })
}

// writeScans writes how stores scan.
func writeScans(w io.Writer, infos []storeInfo) {
	writeHows(w, "how scan goes through the keys:", infos, func(s storeInfo) string { return s.Scans })
}

// writeBatches writes how stores do several operations at once.
func writeBatches(w io.Writer, infos []storeInfo) {
	writeHows(w, "how a batch is done:", infos, func(s storeInfo) string { return cmp.Or(s.Batches, "one by one") })
}

// writeHows writes how stores do something that not all can.
func writeHows(w io.Writer, title string, infos []storeInfo, of func(s storeInfo) string) {
	var hows []string
	stores := make(map[string][]string)
	for _, s := range infos {
		how := cmp.Or(of(s), "none")
		if len(stores[how]) == 0 {
			hows = append(hows, how)
		}
		stores[how] = append(stores[how], s.Name)
	}
	fmt.Fprintln(w, title)
	for _, how := range hows {
		fmt.Fprintf(w, "  %s: %s\n", strings.Join(stores[how], ", "), how)
	}
	fmt.Fprintln(w)
}

// table returns a writer of columns that are aligned at the right.
func table(w io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
}

func (r result) writeOps(w io.Writer) {
	t := table(w)
	fmt.Fprintln(t, "store\top/s\tmin\tmax\tratio\tp50\tp99\tp99.9\tanon\tfile\tdisk\twritten\tallocs/op\tload/s\t")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.1f\t%s\t\n", row.Name,
			rateText(row.OpsPerSecond.Median), rateText(row.OpsPerSecond.Min), rateText(row.OpsPerSecond.Max), ratioText(row.Ratio),
			nanosText(row.P50.Median), nanosText(row.P99.Median), nanosText(row.P999.Median),
			bytesText(int64(row.AnonBytes.Median)), bytesText(int64(row.FileBytes.Median)), bytesText(int64(row.DiskBytes.Median)),
			bytesText(int64(row.WrittenBytes.Median)), row.AllocsPerOp.Median, rateText(row.LoadOpsPerSecond.Median))
	}
	_ = t.Flush()
}

// writeTimed says what the latencies are of.
func (r result) writeTimed(w io.Writer) {
	if n := r.Parameters.Batch; n > 1 {
		fmt.Fprintf(w, "op/s counts keys; p50, p99 and p99.9 are those of a batch, of which 1 in %d is timed\n", batchesTimedOneIn(n))
		return
	}
	fmt.Fprintf(w, "p50, p99 and p99.9 are those of an operation, of which 1 in %d is timed\n", timedOneIn)
}

func (r result) writeMaximum(w io.Writer) {
	t := table(w)
	fmt.Fprintln(t, "store\tmaximum op/s\tmin\tmax\tratio\tanon\tfile\tdisk\tload/s\t")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", row.Name,
			rateText(row.OpsPerSecond.Median), rateText(row.OpsPerSecond.Min), rateText(row.OpsPerSecond.Max), ratioText(row.Ratio),
			bytesText(int64(row.AnonBytes.Median)), bytesText(int64(row.FileBytes.Median)), bytesText(int64(row.DiskBytes.Median)),
			rateText(row.LoadOpsPerSecond.Median))
	}
	_ = t.Flush()
}

// writeLoads writes two lines for each share of the maximum: of the store, and
// of its control; and between them one of the store without snapshots, if they
// are uploaded.
func (r result) writeLoads(w io.Writer) {
	fmt.Fprintln(w)
	t := table(w)
	fmt.Fprintln(t, "store\tshare\tdue/s\tdone/s\tp50\tp99\tp99.9\tmax\tp99.9 above\tmax above\tsnapshots\tcut\tlongest cut\tcomplete\twritten\tuploaded\t")
	for _, row := range r.Rows {
		for _, l := range row.Loads {
			fmt.Fprintf(t, "%s\t%g%%\t%s\t%s\t%s\t%s\t%s\t", row.Name, 100*l.Share,
				rateText(l.Rate.Median), rateText(l.Reached.Median), l.Latency.text(), nanosText(l.P999Above.Median), nanosText(l.MaxAbove.Median))
			uploaded := "-"
			if l.UploadedBytes != nil {
				uploaded = bytesText(int64(l.UploadedBytes.Median))
			}
			fmt.Fprintf(t, "%g\t%s\t%s\t%s\t%s\t%s\t\n", l.Snapshots.Median,
				tookText(l.Cut.Median.Median), tookText(l.Cut.Longest.Median), tookText(l.Complete.Median.Median), bytesText(int64(l.WrittenBytes.Median)), uploaded)
			if without := l.Without; without != nil {
				fmt.Fprintf(t, "without\t%g%%\t%s\t%s\t%s\t%s\t%s\t\t\t\t\t\t\t\n", 100*l.Share, rateText(l.Rate.Median),
					rateText(without.Reached.Median), without.Latency.text(), nanosText(without.P999Above.Median), nanosText(without.MaxAbove.Median))
			}
			fmt.Fprintf(t, "control\t%g%%\t%s\t\t%s\t\t\t\t\t\t\t\t\t\n", 100*l.Share, rateText(l.Rate.Median), l.Control.text())
		}
	}
	_ = t.Flush()
}

// text returns the columns of a table.
func (l latencySpread) text() string {
	return strings.Join([]string{
		nanosText(l.P50.Median), nanosText(l.P99.Median), nanosText(l.P999.Median), nanosText(l.Max.Median),
	}, "\t")
}

// tookText returns how long something took, if it was done at all.
func tookText(ns float64) string {
	if ns == 0 {
		return "-"
	}
	return nanosText(ns)
}

// everyText says how often something is done.
func everyText(pause time.Duration) string {
	if pause == 0 {
		return "never"
	}
	return "every " + pause.String()
}

// writeScanned writes a line for each store for all that was scanned. It puts
// together what is to be compared.
func (r result) writeScanned(w io.Writer) {
	t := table(w)
	fmt.Fprintln(t, "scan\tstate\tstore\tkeys/s\tmin\tmax\tratio\tper key\tscans\t")
	for i := range r.scans() {
		for _, row := range r.Rows {
			s := row.Scanned[i]
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", s.Scan, s.State, row.Name,
				rateText(s.KeysPerSecond.Median), rateText(s.KeysPerSecond.Min), rateText(s.KeysPerSecond.Max), ratioText(s.Ratio),
				nanosText(s.NanosPerKey.Median), humanize.Comma(int64(s.Scans.Median)))
		}
	}
	_ = t.Flush()
	fmt.Fprintln(w)
}

// scans returns what each store scanned.
func (r result) scans() []scanRow {
	if len(r.Rows) == 0 {
		return nil
	}
	return r.Rows[0].Scanned
}

func (r result) writeSizes(w io.Writer) {
	t := table(w)
	fmt.Fprintln(t, "store\tanon\tfile\tdisk\tload/s\t")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t\n", row.Name, bytesText(int64(row.AnonBytes.Median)), bytesText(int64(row.FileBytes.Median)),
			bytesText(int64(row.DiskBytes.Median)), rateText(row.LoadOpsPerSecond.Median))
	}
	_ = t.Flush()
}

func (r result) writeScanMatrices(w io.Writer) {
	for i, s := range r.scans() {
		writeMatrix(w, s.what()+", times as fast as", r.speeds(func(r row) float64 { return r.Scanned[i].KeysPerSecond.Median }))
	}
}

// writeUploaded writes a line for each store for each number of updates. It puts
// together what is to be compared.
func (r result) writeUploaded(w io.Writer) {
	t := table(w)
	fmt.Fprintln(t, "updates\tstore\tuploaded/changed\tmin\tmax\tratio\tchanged\tuploaded\tat rest\trequests\tcut\tlongest cut\tcomplete\tlongest\t")
	for i := range r.uploads() {
		for _, row := range r.Rows {
			u := row.Uploaded[i]
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", humanize.Comma(int64(u.Updates)), row.Name,
				threeDigits(u.BytesPerByte.Median), threeDigits(u.BytesPerByte.Min), threeDigits(u.BytesPerByte.Max), ratioText(u.Ratio),
				bytesText(int64(u.ChangedBytes.Median)), bytesText(int64(u.Bytes.Median)), bytesText(int64(u.AfterBytes.Median)), humanize.Comma(int64(u.Requests.Median)),
				tookText(u.Cut.Median.Median), tookText(u.Cut.Longest.Median), tookText(u.Complete.Median.Median), tookText(u.Complete.Longest.Median))
		}
	}
	_ = t.Flush()
	fmt.Fprintln(w)
	t = table(w)
	fmt.Fprintln(t, "store\tfirst snapshot\ttook\tanon\tfile\tdisk\tload/s\t")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", row.Name, bytesText(int64(row.FirstBytes.Median)), secondsText(row.FirstSeconds.Median),
			bytesText(int64(row.AnonBytes.Median)), bytesText(int64(row.FileBytes.Median)), bytesText(int64(row.DiskBytes.Median)), rateText(row.LoadOpsPerSecond.Median))
	}
	_ = t.Flush()
}

// uploads returns what each store uploaded.
func (r result) uploads() []uploadRow {
	if len(r.Rows) == 0 {
		return nil
	}
	return r.Rows[0].Uploaded
}

func (r result) writeUploadMatrices(w io.Writer) {
	for i, u := range r.uploads() {
		title := fmt.Sprintf("snapshots after %s, times as few bytes as", counted(u.Updates, "update"))
		writeMatrix(w, title, r.speeds(func(r row) float64 { return r.Uploaded[i].thrift() }))
	}
}

func (r result) writeRecovery(w io.Writer) {
	t := table(w)
	fmt.Fprintln(t, "store\topen\tfirst get\ttogether\tmin\tmax\tratio\tlost keys\tanon\tfile\tdisk\tload/s\t")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.0f\t%s\t%s\t%s\t%s\t\n", row.Name,
			secondsText(row.OpenSeconds.Median), secondsText(row.FirstGetSeconds.Median),
			secondsText(row.ReadySeconds.Median), secondsText(row.ReadySeconds.Min), secondsText(row.ReadySeconds.Max), ratioText(row.Ratio),
			row.Lost.Median, bytesText(int64(row.AnonBytes.Median)), bytesText(int64(row.FileBytes.Median)), bytesText(int64(row.DiskBytes.Median)),
			rateText(row.LoadOpsPerSecond.Median))
	}
	_ = t.Flush()
}

// A speed is how fast a store is, in a unit that all of a comparison share.
type speed struct {
	name  string
	value float64
}

// writeMatrix writes how many times as fast as each other store each store is,
// the fastest first.
func writeMatrix(w io.Writer, title string, speeds []speed) {
	if len(speeds) < 3 {
		return // a ratio has said it
	}
	speeds = slices.SortedStableFunc(slices.Values(speeds), func(a, b speed) int { return cmp.Compare(b.value, a.value) })
	fmt.Fprintf(w, "\n%s\n", title)
	t := table(w)
	fmt.Fprint(t, "\t")
	for _, s := range speeds {
		fmt.Fprintf(t, "%s\t", s.name)
	}
	fmt.Fprintln(t)
	for _, s := range speeds {
		fmt.Fprintf(t, "%s\t", s.name)
		for _, other := range speeds {
			fmt.Fprintf(t, "%s\t", ratioText(s.value/other.value))
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush()
}

// A seedResult is a seed table and the stores in it.
type seedResult struct {
	Stores []storeInfo `json:"stores"`
	bench.SeedTableResult
}

func (r seedResult) writeText(w io.Writer) error {
	var out strings.Builder
	writeInfos(&out, r.Stores)
	if err := r.WriteText(&out); err != nil {
		return err
	}
	for _, phase := range r.phases() {
		writeMatrix(&out, phase+" of all blocks together, times as fast as", r.speeds(phase))
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// phases returns the names of what each store does.
func (r seedResult) phases() []string {
	var phases []string
	for _, row := range r.Rows {
		if !slices.Contains(phases, row.Phase) {
			phases = append(phases, row.Phase)
		}
	}
	return phases
}

// speeds returns how fast stores are in a phase, summed up over all blocks of
// the table. A store that did not get through all that others did has none.
func (r seedResult) speeds(phase string) []speed {
	seconds, blocks, most := make(map[string]float64), make(map[string]int), 0
	for _, row := range r.Rows {
		if row.Phase == phase {
			seconds[row.Contender] += row.Seconds.Median
			blocks[row.Contender]++
			most = max(most, blocks[row.Contender])
		}
	}
	var speeds []speed
	for _, name := range r.Parameters.Contenders {
		if blocks[name] == most && most > 0 {
			speeds = append(speeds, speed{name, 1 / seconds[name]})
		}
	}
	return speeds
}

// counted returns a number with its noun.
func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return humanize.Comma(int64(n)) + " " + noun
}

// bytesText returns a size as 128 MiB.
func bytesText(n int64) string { return humanize.IBytes(uint64(max(0, n))) }

// threeDigits returns a number with as many decimals as three digits leave.
func threeDigits(x float64) string {
	switch {
	case x >= 99.95:
		return fmt.Sprintf("%.0f", x)
	case x >= 9.995:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// rateText returns operations a second as 1.23M.
func rateText(x float64) string {
	switch {
	case x >= 999_500:
		return threeDigits(x/1e6) + "M"
	case x >= 999.5:
		return threeDigits(x/1e3) + "k"
	}
	return threeDigits(x)
}

// ratioText returns a ratio as 1.23x. What there is nothing to compare with
// has none.
func ratioText(x float64) string {
	if x == 0 {
		return "-"
	}
	if x < 0.0995 {
		return fmt.Sprintf("%.3fx", x)
	}
	return threeDigits(x) + "x"
}

// nanosText returns a time as 1.23µs.
func nanosText(ns float64) string {
	if ns < 0 { // a difference
		return "-" + nanosText(-ns)
	}
	switch d := time.Duration(ns); {
	case d >= time.Second:
		return threeDigits(ns/1e9) + "s"
	case d >= time.Millisecond:
		return threeDigits(ns/1e6) + "ms"
	case d >= time.Microsecond:
		return threeDigits(ns/1e3) + "µs"
	}
	return fmt.Sprintf("%.0fns", ns)
}

func secondsText(s float64) string { return nanosText(s * 1e9) }
