// Package metrics exports the figures of open stores to Prometheus.
//
//	c := metrics.NewCollector("partition-3", store)
//	registry.MustRegister(c)
//	...
//	registry.Unregister(c) // when the store is closed
//
// There is one collector for each store, and all that it exports has the labels
// store, the name that it was made with, and engine.
//
//	kvstore_keys                             gauge    keys that have a value; with LSMTree an estimate
//	kvstore_memory_bytes                     gauge    memory in use for keys, values and indexes
//	kvstore_memory_budget_bytes              gauge    Options.MemoryBytes
//	kvstore_disk_bytes                       gauge    size of all data files
//	kvstore_pinned_bytes                     gauge    size of the data files that only snapshots need
//	kvstore_merged_bytes_total               counter  bytes that merges have copied since the store was opened
//	kvstore_writes_total                     counter  writes, each of a batch counted
//	kvstore_writes_durable_total             counter  those of them that survive a power cut
//	kvstore_snapshots                        gauge    snapshots in the directory
//	kvstore_snapshots_waiting                gauge    snapshots that are not completed or not uploaded yet
//	kvstore_last_snapshot_id                 gauge    id of the snapshot that the state descends from, 0 without one
//	kvstore_last_snapshot_timestamp_seconds  gauge    Unix time at which that was cut, 0 without one
//
// An LSMTree has these too. The level, a label, of the newest runs is 0. The
// counters begin when the store is opened.
//
//	kvstore_tree_level_runs                  gauge    runs of a level
//	kvstore_tree_level_records               gauge    records in them, also those that newer ones hide
//	kvstore_tree_level_bytes                 gauge    size of them
//	kvstore_tree_merge_debt_runs             gauge    runs by which merging is behind; if not 0 writers are slowed down
//	kvstore_tree_flushed_bytes_total         counter  size of the runs that were written from memory
//	kvstore_tree_filter_queries_total        counter  how often the filter of a run was asked for a key
//	kvstore_tree_filter_hit_ratio            gauge    part of the runs without the key that a filter kept reads from
//
// # Counting writes
//
// The two counters of writes are sequence numbers, which a rollback does not
// take back. A crash may, with engines that lose writes by it, and Prometheus
// takes a counter that fell for one that began again at 0, and adds all of it.
// So a collector counts from the last write that was durable when it was made.
// Both counters lack the same number, so their difference is still what a power
// cut would take:
//
//	kvstore_writes_total - kvstore_writes_durable_total
//
// # Alerts for a stream processor
//
//	time() - kvstore_last_snapshot_timestamp_seconds > 300   # for 5m: after a failure a lot is to be read again
//	min_over_time(kvstore_snapshots_waiting[10m]) > 0        # the disk or the remote does not keep up
//	min_over_time(kvstore_tree_merge_debt_runs[10m]) > 0     # there are more writes than merging can bear
//
// The first one tells about a store that never had a snapshot, too. With a
// remote it does not tell about uploads that failed: that is for Snapshot.Wait.
package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nikosgavalas/kvstore"
)

// NewCollector returns a collector of the figures of a store, to be registered
// under a name that no other store in the registry has. It is for as long as
// the store is open: of a closed one it exports what Stats and Base still
// answer. If the store is opened again, unregister it and register a new one.
func NewCollector(name string, s *kvstore.Store) prometheus.Collector {
	st := s.Stats()
	return &collector{
		store:  s,
		labels: prometheus.Labels{"store": name, "engine": st.Engine},
		first:  st.Durable,
	}
}

type collector struct {
	store  *kvstore.Store
	labels prometheus.Labels
	first  uint64 // the sequence number behind which writes are counted
}

// Describe names all that there may be, so that a second store of the same name
// is refused.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, c.labels, ofStore)
	describe(ch, c.labels, ofBase)
	describe(ch, c.labels, ofTree)
	describe(ch, c.labels, ofLevel)
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	base, _ := c.store.Base()
	c.collect(ch, c.store.Stats(), base)
}

func (c *collector) collect(ch chan<- prometheus.Metric, st kvstore.Stats, base kvstore.SnapshotInfo) {
	st.Issued -= c.first
	st.Durable -= c.first
	collect(ch, c.labels, ofStore, st)
	collect(ch, c.labels, ofBase, base)
	if st.Tree == nil {
		return
	}
	collect(ch, c.labels, ofTree, st.Tree)
	for _, l := range st.Tree.Levels {
		collect(ch, c.labels, ofLevel, l, strconv.Itoa(l.Level))
	}
}

// A family is a metric that is made of a T.
type family[T any] struct {
	kind       prometheus.ValueType
	name, help string
	by         []string // labels that differ within a store
	value      func(T) float64
}

func gauge[T any](name, help string, value func(T) float64) family[T] {
	return family[T]{prometheus.GaugeValue, name, help, nil, value}
}

func counter[T any](name, help string, value func(T) float64) family[T] {
	return family[T]{prometheus.CounterValue, name, help, nil, value}
}

func byLevel(name, help string, value func(kvstore.LevelStats) float64) family[kvstore.LevelStats] {
	return family[kvstore.LevelStats]{prometheus.GaugeValue, name, help, []string{"level"}, value}
}

func (f family[T]) desc(labels prometheus.Labels) *prometheus.Desc {
	return prometheus.NewDesc(f.name, f.help, f.by, labels)
}

func describe[T any](ch chan<- *prometheus.Desc, labels prometheus.Labels, families []family[T]) {
	for _, f := range families {
		ch <- f.desc(labels)
	}
}

func collect[T any](ch chan<- prometheus.Metric, labels prometheus.Labels, families []family[T], from T, by ...string) {
	for _, f := range families {
		ch <- prometheus.MustNewConstMetric(f.desc(labels), f.kind, f.value(from), by...)
	}
}
