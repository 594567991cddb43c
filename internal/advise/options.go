package advise

import (
	"fmt"
	"strings"
	"time"

	"github.com/nikosgavalas/kvstore"
)

// syncEvery is what SyncInterval syncs by.
const syncEvery = time.Second

// configure gives an engine the durability that is asked for, if it has it.
func configure(e kvstore.Engine, d Durability) kvstore.Engine {
	var mode kvstore.Sync
	switch d {
	case SyncInterval:
		mode = kvstore.SyncInterval(syncEvery)
	case SyncAlways:
		mode = kvstore.SyncAlways
	}
	switch e := e.(type) {
	case kvstore.LSMTree:
		// Its log is of no use to who goes back to a snapshot anyway.
		e.NoLog, e.Sync = d == ToSnapshot, mode
		return e
	case kvstore.AppendLog:
		e.Sync = mode
		return e
	}
	return e
}

// Code returns the options to use an engine with, as a Go expression. Only who
// goes back to snapshots anyway starts at the last one.
func Code(name string, n Needs) string {
	start := ""
	if n.Durability == ToSnapshot {
		start = "\tStart:       kvstore.LastSnapshot,\n"
	}
	return fmt.Sprintf("kvstore.Options{\n\tEngine:      %s,\n\tMemoryBytes: %s,\n%s}",
		engineCode(name, n.Durability), sizeCode(n.Memory), start)
}

func engineCode(name string, d Durability) string {
	e, err := kvstore.ParseEngine(name)
	if err != nil {
		return "nil"
	}
	var set []string
	sync := map[Durability]string{
		SyncInterval: "Sync: kvstore.SyncInterval(time.Second)",
		SyncAlways:   "Sync: kvstore.SyncAlways",
	}[d]
	switch e.(type) {
	case kvstore.LSMTree:
		if d == ToSnapshot {
			set = append(set, "NoLog: true")
		}
		if sync != "" {
			set = append(set, sync)
		}
	case kvstore.AppendLog:
		if sync != "" {
			set = append(set, sync)
		}
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", e), "*") + "{" + strings.Join(set, ", ") + "}"
}

// sizeCode writes a size as people do.
func sizeCode(n int64) string {
	for _, shift := range []int{30, 20, 10} {
		if n > 0 && n%(1<<shift) == 0 {
			return fmt.Sprintf("%d << %d", n>>shift, shift)
		}
	}
	return fmt.Sprint(n)
}
