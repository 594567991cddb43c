package manifest

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestNames(t *testing.T) {
	for _, c := range []struct {
		name string
		kind Kind
		n    uint64
	}{
		{"1.log", Log, 1},
		{"2.seg", Segment, 2},
		{"30.run", Run, 30},
		{"400.hint", Hint, 400},
		{"5000.idx", Index, 5000},
		{"SNAPSHOT-6", SnapshotFile, 6},
		{"MANIFEST-7", ManifestFile, 7},
		{"tmp-8", TempFile, 8},
		{"LOCK", LockFile, 0},
		{"4611686018427387903.log", Log, 1<<62 - 1},
		{"MANIFEST-4611686018427387903", ManifestFile, 1<<62 - 1},
	} {
		if got := Name(c.kind, c.n); got != c.name {
			t.Errorf("Name(%d, %d) = %q, want %q", c.kind, c.n, got, c.name)
		}
		if k, n, ok := ParseName(c.name); k != c.kind || n != c.n || !ok {
			t.Errorf("ParseName(%q) = %d, %d, %v", c.name, k, n, ok)
		}
	}
}

// TestKindNumbers pins the numbers that manifests hold.
func TestKindNumbers(t *testing.T) {
	for want, k := range []Kind{1: Log, 2: Segment, 3: Run, 4: Hint, 5: Index} {
		if want > 0 && int(k) != want {
			t.Errorf("a kind that was %d is %d", want, k)
		}
	}
}

func TestNamesOfOthers(t *testing.T) {
	for _, name := range []string{
		"", ".", "..", "log", ".log", "1", "1.", "-1.log", "+1.log", " 1.log", "1.log ", "1 .log", "0x1.log", "1_0.log", "1e1.log",
		"0.log", "00.log", "007.log", "01.log", "1.log.bak", "1.LOG", "1.Log", "1.log~", "1.logs", "1.log.log", "1..log", "1.seg.log",
		"a.log", "1a.log", "١.log", "1.ldb", "1.sst", "000003.log", "1.tmp", "1.hint.idx",
		"4611686018427387904.log", "9223372036854775808.log", "18446744073709551616.log", "99999999999999999999999.log",
		"MANIFEST", "MANIFEST-", "MANIFEST-0", "MANIFEST-000001", "MANIFEST-01", "MANIFEST--1", "MANIFEST-1.bak", "manifest-1",
		"MANIFEST-x", "MANIFEST-1-1", "MANIFEST1", "MANIFEST_1", "xMANIFEST-1", "MANIFEST-1.log", "MANIFEST-4611686018427387904",
		"SNAPSHOT", "SNAPSHOT-", "SNAPSHOT-0", "SNAPSHOT-01", "Snapshot-1", "SNAPSHOT-1.log", "SNAPSHOT-SNAPSHOT-1", "SNAPSHOT-4611686018427387904",
		"tmp", "tmp-", "tmp-x", "tmp-0", "tmp-01", "tmp-1x", "TMP-1", "tmp-MANIFEST-1", "tmp-4611686018427387904",
		"lock", "LOCK ", "LOCK-1", "LOCK.lock", "1.LOCK", "CURRENT", "IDENTITY", "OPTIONS-000005", "lost+found",
	} {
		if k, n, ok := ParseName(name); ok || k != 0 || n != 0 {
			t.Errorf("ParseName(%q) = %d, %d, %v", name, k, n, ok)
		}
	}
}

// TestNamesInverse checks that Name and ParseName are inverse to each other,
// both ways.
func TestNamesInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]Kind{Log, Segment, Run, Hint, Index, SnapshotFile, ManifestFile, TempFile}).Draw(t, "kind")
		n := rapid.Uint64Range(1, 1<<62-1).Draw(t, "n")
		if k, m, ok := ParseName(Name(kind, n)); !ok || k != kind || m != n {
			t.Errorf("%q is parsed as %d, %d, %v", Name(kind, n), k, m, ok)
		}
		n = rapid.Uint64Range(1<<62, math.MaxUint64).Draw(t, "large")
		if k, m, ok := ParseName(Name(kind, n)); ok {
			t.Errorf("%q is parsed as %d, %d", Name(kind, n), k, m)
		}
		name := rapid.StringMatching(`(MANIFEST-|SNAPSHOT-|tmp-|LOCK)?[0-9x]{0,3}(\.log|\.seg|\.run|\.hint|\.idx)?`).Draw(t, "name")
		if k, n, ok := ParseName(name); ok && Name(k, n) != name {
			t.Errorf("%q is parsed as %d, %d, which is %q", name, k, n, Name(k, n))
		}
	})
}

func TestNameOfUnknownKind(t *testing.T) {
	for _, k := range []Kind{0, LockFile + 1, 255} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("kind %d has a name", k)
				}
			}()
			Name(k, 1)
		}()
	}
}
