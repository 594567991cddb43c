package checkpoint

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/nikosgavalas/kvstore/internal/manifest"
)

// The folders of the bucket.
const (
	epochs    = "epoch/"
	snapshots = "snapshot/"
	data      = "data/"
	retired   = "retired/"
)

const fromSuffix = ".from"

func epochName(e uint64) string { return fmt.Sprintf("%s%016x", epochs, e) }

func fromName(e uint64) string { return epochName(e) + fromSuffix }

func keyName(folder string, k manifest.Key) string {
	return fmt.Sprintf("%s%016x-%016x", folder, k.Epoch, k.N)
}

// parseKey is the inverse of keyName. It takes no other names, so that what
// somebody else put into the bucket is left alone.
func parseKey(folder, name string) (k manifest.Key, ok bool) {
	e, n, found := strings.Cut(strings.TrimPrefix(name, folder), "-")
	var errE, errN error
	k.Epoch, errE = strconv.ParseUint(e, 16, 64)
	k.N, errN = strconv.ParseUint(n, 16, 64)
	return k, found && errE == nil && errN == nil && keyName(folder, k) == name
}

// parseEpoch takes the name of a claim, or of what it goes on from.
func parseEpoch(name string) (e uint64, from, ok bool) {
	number, from := strings.CutSuffix(strings.TrimPrefix(name, epochs), fromSuffix)
	e, err := strconv.ParseUint(number, 16, 64)
	want := epochName(e)
	if from {
		want = fromName(e)
	}
	return e, from, err == nil && e > 0 && name == want
}
