package metrics

import "github.com/nikosgavalas/kvstore"

var ofStore = []family[kvstore.Stats]{
	gauge("kvstore_keys", "Keys that have a value; with LSMTree an estimate.",
		func(s kvstore.Stats) float64 { return float64(s.Keys) }),
	gauge("kvstore_memory_bytes", "Memory in use for keys, values and indexes.",
		func(s kvstore.Stats) float64 { return float64(s.MemoryBytes) }),
	gauge("kvstore_memory_budget_bytes", "Memory that the store may use.",
		func(s kvstore.Stats) float64 { return float64(s.BudgetBytes) }),
	gauge("kvstore_disk_bytes", "Size of all data files.",
		func(s kvstore.Stats) float64 { return float64(s.DiskBytes) }),
	gauge("kvstore_pinned_bytes", "Size of the data files that only snapshots need.",
		func(s kvstore.Stats) float64 { return float64(s.PinnedBytes) }),
	counter("kvstore_merged_bytes_total", "Bytes that merges have copied.",
		func(s kvstore.Stats) float64 { return float64(s.MergedBytes) }),
	counter("kvstore_writes_total", "Writes, each of a batch counted.",
		func(s kvstore.Stats) float64 { return float64(s.Issued) }),
	counter("kvstore_writes_durable_total", "Writes that survive a power cut.",
		func(s kvstore.Stats) float64 { return float64(s.Durable) }),
	gauge("kvstore_snapshots", "Snapshots in the directory.",
		func(s kvstore.Stats) float64 { return float64(s.Snapshots) }),
	gauge("kvstore_snapshots_waiting", "Snapshots that are not completed or not uploaded yet.",
		func(s kvstore.Stats) float64 { return float64(s.Waiting) }),
}

var ofBase = []family[kvstore.SnapshotInfo]{
	gauge("kvstore_last_snapshot_id", "Id of the snapshot that the state descends from, 0 without one.",
		func(b kvstore.SnapshotInfo) float64 { return float64(b.ID) }),
	gauge("kvstore_last_snapshot_timestamp_seconds", "Unix time at which that snapshot was cut, 0 without one.",
		func(b kvstore.SnapshotInfo) float64 {
			if b.ID == 0 {
				return 0
			}
			return float64(b.Time.UnixMilli()) / 1000
		}),
}

var ofTree = []family[*kvstore.TreeStats]{
	gauge("kvstore_tree_merge_debt_runs", "Runs by which merging is behind; if not 0 writers are slowed down.",
		func(t *kvstore.TreeStats) float64 { return float64(t.Debt) }),
	counter("kvstore_tree_flushed_bytes_total", "Size of the runs that were written from memory.",
		func(t *kvstore.TreeStats) float64 { return float64(t.FlushedBytes) }),
	counter("kvstore_tree_filter_queries_total", "How often the filter of a run was asked for a key.",
		func(t *kvstore.TreeStats) float64 { return float64(t.FilterAsked) }),
	gauge("kvstore_tree_filter_hit_ratio", "Part of the runs without the key that a filter kept reads from.",
		func(t *kvstore.TreeStats) float64 { return t.FilterHitRate }),
}

var ofLevel = []family[kvstore.LevelStats]{
	byLevel("kvstore_tree_level_runs", "Runs of a level.",
		func(l kvstore.LevelStats) float64 { return float64(l.Runs) }),
	byLevel("kvstore_tree_level_records", "Records in the runs of a level, also those that newer ones hide.",
		func(l kvstore.LevelStats) float64 { return float64(l.Records) }),
	byLevel("kvstore_tree_level_bytes", "Size of the runs of a level.",
		func(l kvstore.LevelStats) float64 { return float64(l.Bytes) }),
}
