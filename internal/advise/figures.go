package advise

import (
	"time"

	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/results"
)

// Figures is what one engine did. What could not be measured, or was not asked
// for, is zero.
type Figures struct {
	Engine string `json:"engine"`
	Failed string `json:"failed,omitempty"` // why it could not be measured

	LoadSeconds  float64        `json:"load_seconds"`
	Operations   int64          `json:"operations"`
	OpsPerSecond results.Spread `json:"ops_per_second"` // of the rounds
	Reads        bench.Latency  `json:"read_latency_ns"`
	Writes       bench.Latency  `json:"write_latency_ns"`
	Scans        bench.Latency  `json:"scan_latency_ns"`
	ScansASecond float64        `json:"scans_per_second"`
	PauseNanos   int64          `json:"pause_ns"` // the longest

	MemoryBytes    int64   `json:"memory_bytes"`    // that the store counts, at most at the end of a round
	AnonymousBytes int64   `json:"anonymous_bytes"` // by which the process grew when it was loaded
	DiskBytes      int64   `json:"disk_bytes"`
	WrittenPerOp   float64 `json:"written_bytes_per_op"`

	Snapshots       int     `json:"snapshots"`
	CutNanos        int64   `json:"snapshot_cut_ns"`           // the longest
	CompleteSeconds float64 `json:"snapshot_complete_seconds"` // the longest
	SnapshotBytes   int64   `json:"snapshot_bytes"`            // of new data that a snapshot uploads, the mean
	OpenSeconds     float64 `json:"open_seconds"`
	RestoreSeconds  float64 `json:"restore_seconds"`
	RollbackSeconds float64 `json:"rollback_seconds"` // to the last snapshot, half a round after it
}

// p99 is the highest of reads, writes and scans.
func (f *Figures) p99() time.Duration {
	return time.Duration(max(f.Reads.P99, f.Writes.P99, f.Scans.P99))
}
