package checkpoint

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/bucket"
	"github.com/nikosgavalas/kvstore/internal/manifest"
	"pgregory.net/rapid"
)

var anyNumber = rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 20), rapid.SampledFrom([]uint64{math.MaxUint64, 1 << 63, 1<<32 - 1}))

func TestNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func() manifest.Key {
			return manifest.Key{Epoch: anyNumber.Draw(t, "epoch"), N: anyNumber.Draw(t, "n")}
		}
		k, l := draw(), draw()
		for _, folder := range []string{snapshots, data, retired} {
			name := keyName(folder, k)
			if got, ok := parseKey(folder, name); !ok || got != k {
				t.Fatalf("%s is %v, %v", name, got, ok)
			}
			if err := bucket.CheckName(name); err != nil {
				t.Fatal(err)
			}
			if k.Compare(l) != strings.Compare(name, keyName(folder, l)) {
				t.Fatalf("%v and %v are in another order than their names", k, l)
			}
		}
		if _, ok := parseKey(data, keyName(retired, k)); ok {
			t.Fatal("a name of one folder is taken for one of another")
		}
		e, from, ok := parseEpoch(epochName(k.Epoch))
		if ok != (k.Epoch > 0) || e != k.Epoch || from {
			t.Fatalf("%s is %d, %v, %v", epochName(k.Epoch), e, from, ok)
		}
		e, from, ok = parseEpoch(fromName(k.Epoch))
		if ok != (k.Epoch > 0) || e != k.Epoch || !from {
			t.Fatalf("%s is %d, %v, %v", fromName(k.Epoch), e, from, ok)
		}
	})
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{
		"", "epoch/", "epoch/0000000000000000", "epoch/000000000000000a", "epoch/000000000000000A", "epoch/0000000000000001.from",
		"epoch/0000000000000001.from.from", "epoch/1", "epoch/+000000000000001", "epoch/epoch/0000000000000001", "0000000000000001",
		"data/0000000000000001-0000000000000002", "data/0000000000000001-0000000000000002-", "data/0000000000000001_0000000000000002",
		"data/1-2", "data/data/0000000000000001-0000000000000002", "data/000000000000000_-0000000000000002", "0000000000000001-0000000000000002",
		"data/00000000000000001-0000000000000002", "snapshot/ffffffffffffffff-ffffffffffffffff", "snapshot/0x00000000000001-0000000000000002",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		for _, folder := range []string{snapshots, data, retired, ""} {
			if k, ok := parseKey(folder, name); ok && keyName(folder, k) != name {
				t.Errorf("%q is taken for %s", name, keyName(folder, k))
			}
		}
		switch e, from, ok := parseEpoch(name); {
		case !ok:
		case e == 0, from && fromName(e) != name, !from && epochName(e) != name:
			t.Errorf("%q is taken for %d, %v", name, e, from)
		}
	})
}

func FuzzUnseal(f *testing.F) {
	for _, s := range []string{"", "\n", " ", " 00000000\n", "claim 1 00000000\n", string(seal("")), string(seal("claim 1")), string(seal("a\n")), string(seal("x")) + "\n", strings.ToUpper(string(seal("CLAIM")))} {
		f.Add([]byte(s), uint(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, bit uint) {
		if text, err := unseal("it", b); err != nil {
			wantCorrupt(t, err, "it")
		} else if !bytes.Equal(seal(text), b) {
			t.Errorf("%q is read as %q", b, text)
		}
		sealed := seal(string(b))
		if text, err := unseal("it", sealed); err != nil || text != string(b) {
			t.Errorf("%q is read as %q, %v", sealed, text, err)
		}
		if text, err := unseal("it", flipped(sealed, int(bit%uint(8*len(sealed))))); err == nil {
			t.Errorf("%q with a bit flipped is read as %q", sealed, text)
		}
		if text, err := unseal("it", sealed[:bit%uint(len(sealed))]); err == nil && !bytes.Contains(b, []byte("\n")) {
			t.Errorf("a part of %q is read as %q", sealed, text)
		}
	})
}

// TestFrom has objects with right checksums and wrong text.
func TestFrom(t *testing.T) {
	k := manifest.Key{Epoch: 3, N: 0x1f}
	good := fromText(k, 5)
	for text, ok := range map[string]bool{
		good: true, good + " ": false, " " + good: false, good[:len(good)-1]: false, good + "0": false, strings.ToUpper(good): false,
		strings.Replace(good, "from", "claim", 1): false, strings.Replace(good, "1f", "1F", 1): false, "": false,
		strings.Replace(good, "-", "--", 1): false, strings.Replace(good, "000003", "+00003", 1): false,
	} {
		b := bucket.NewMem()
		replace(t, b, fromName(4), seal(text))
		got, err := New(b, quiet()).from(ctx, 4)
		if ok && (err != nil || got != k) {
			t.Errorf("%q is %v, %v", text, got, err)
		} else if !ok {
			wantCorrupt(t, err, fromName(4))
		}
	}
}

// TestForeign: names of others are left alone.
func TestForeign(t *testing.T) {
	b, d := bucket.NewMem(), newDir(t, newTruth(), 1)
	var foreign []string
	for _, folder := range []string{"", epochs, snapshots, data, retired} {
		for _, name := range []string{"README", "zzz", "1", "0000000000000001-1", "0000000000000001-0000000000000002.x"} {
			replace(t, b, folder+name, []byte("mine"))
			foreign = append(foreign, folder+name)
		}
	}
	// What is not of a store has to come later than the first writer.
	if _, err := d.claim(b); !errors.Is(err, manifest.ErrNotStore) {
		t.Fatalf("claiming what is somebody else's: %v", err)
	}
	all := names(t, b, "")
	if len(all) != len(foreign) {
		t.Fatalf("that left %q", all)
	}
	replace(t, b, epochName(1), seal("claim 0000000000000007"))
	w := d.mustClaim(b)
	for range 5 {
		d.mustPublish(w)
		if _, err := prune(w, -1, keepLast(1)); err != nil {
			t.Fatal(err)
		}
	}
	d.truth.wantSound(t, b)
	all = names(t, b, "")
	for _, name := range foreign {
		if !slices.Contains(all, name) {
			t.Errorf("%s was removed", name)
		}
	}
}
