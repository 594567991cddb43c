package manifest

import (
	"fmt"
	"strconv"
	"strings"
)

// Kind is the kind of a file in a store directory. The numbers of the kinds
// that a manifest lists are part of the format.
type Kind uint8

// The kinds of files. Log to Index hold data and are listed in manifests.
const (
	Log Kind = 1 + iota
	Segment
	Run
	Hint
	Index
	SnapshotFile
	ManifestFile
	TempFile
	LockFile
)

// maxNumber bounds the counter, so that it cannot overflow.
const maxNumber = 1 << 62

// LockName is the file that an opener locks. It exists as long as the
// directory is a store.
const LockName = "LOCK"

var (
	prefixes   = map[Kind]string{SnapshotFile: "SNAPSHOT-", ManifestFile: "MANIFEST-", TempFile: "tmp-"}
	extensions = map[Kind]string{Log: ".log", Segment: ".seg", Run: ".run", Hint: ".hint", Index: ".idx"}
)

// Name returns the name of the file of that kind and number.
func Name(k Kind, n uint64) string {
	if k == LockFile {
		return LockName
	}
	number := strconv.FormatUint(n, 10)
	if p, ok := prefixes[k]; ok {
		return p + number
	}
	if x, ok := extensions[k]; ok {
		return number + x
	}
	panic(fmt.Sprintf("manifest: no file kind %d", k))
}

// ParseName is the inverse of Name. It takes nothing but names that Name
// returns, so that files of others, like a LevelDB's MANIFEST-000001, are
// never taken for ours.
func ParseName(name string) (k Kind, n uint64, ok bool) {
	if name == LockName {
		return LockFile, 0, true
	}
	for k, p := range prefixes {
		if number, found := strings.CutPrefix(name, p); found {
			return parsed(name, k, number)
		}
	}
	for k, x := range extensions {
		if number, found := strings.CutSuffix(name, x); found {
			return parsed(name, k, number)
		}
	}
	return 0, 0, false
}

func parsed(name string, k Kind, number string) (Kind, uint64, bool) {
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n == 0 || n >= maxNumber || Name(k, n) != name {
		return 0, 0, false
	}
	return k, n, true
}
