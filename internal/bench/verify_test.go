package bench

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore/internal/workload"
)

// Ways for a target to be wrong about one key, and how the error must put it.
func TestWrongReadsAreFound(t *testing.T) {
	victim := []byte{'k', 7, 0, 0}
	tests := map[string]struct {
		setup func(f *fake)
		says  string
	}{
		"loses a key": {
			func(f *fake) {
				f.set = func(key, value []byte) error {
					if bytes.Equal(key, victim) {
						return nil
					}
					return f.Target.Set(key, value)
				}
			},
			"got no value",
		},
		"keeps the first write": {
			func(f *fake) {
				f.set = func(key, value []byte) error {
					if _, err := f.Target.Get(nil, key); err == nil && bytes.Equal(key, victim) {
						return nil
					}
					return f.Target.Set(key, value)
				}
			},
			"got 0x76",
		},
		"turns a bit": {
			func(f *fake) {
				f.get = func(dst, key []byte) ([]byte, error) {
					dst, err := f.Target.Get(dst, key)
					if bytes.Equal(key, victim) {
						dst[len(dst)-1] ^= 1
					}
					return dst, err
				}
			},
			"01, want 0x",
		},
		"cuts a value short": {
			func(f *fake) {
				f.get = func(dst, key []byte) ([]byte, error) {
					dst, err := f.Target.Get(dst, key)
					if bytes.Equal(key, victim) {
						dst = dst[:len(dst)-1]
					}
					return dst, err
				}
			},
			"want 0x",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(10_000, MutexMap(), contender("liar", test.setup))
			result, err := Run(t.Context(), cfg)
			var wrong *WrongReadsError
			if !errors.As(err, &wrong) {
				t.Fatalf("error %v", err)
			}
			reads := int64(0)
			for _, key := range cfg.Phases[1].Keys {
				if key == 7 {
					reads++
				}
			}
			if wrong.Wrong != reads || wrong.Ops != 10_000 || !bytes.Equal(wrong.Key, victim) || wrong.Phase != "reads" ||
				cfg.Phases[1].Keys[wrong.Op] != 7 {
				t.Errorf("reported %+v, want %d reads of key %#x", wrong, reads, victim)
			}
			for _, part := range []string{"liar", "0x6b070000", test.says} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
			if len(result.Rows) != 3 {
				t.Errorf("%d rows, want the two of the map and the writes", len(result.Rows))
			}
		})
	}
}

// mixed returns phases in which every expectation occurs: keys read before they
// are written, by one and by several goroutines, then written again by one.
func mixed(goroutines int) Config {
	const ops = 20_000
	rng := rand.New(rand.NewPCG(1, 2))
	half := func(n int) []uint32 { return workload.Draw(workload.NewUniform(rng, n), ops) }
	phase := func(name string, keys []uint32, goroutines int) Phase {
		return Phase{Name: name, Keys: keys, Values: half(50), Ops: workload.Mix{Reads: 0.5}.Draw(rng, ops), Goroutines: goroutines}
	}
	return Config{
		Keys:   tableOf(100, 'k'),
		Values: tableOf(50, 'v'),
		Reps:   1,
		Phases: []Phase{
			{Name: "nothing there", Keys: half(100), Goroutines: goroutines},
			phase("first half", half(50), 1),
			phase("all", half(100), goroutines),
			{Name: "some value", Keys: half(100), Goroutines: goroutines},
			phase("again", half(100), 1),
			{Name: "exact", Keys: half(100), Goroutines: goroutines},
		},
	}
}

func TestRightReadsPass(t *testing.T) {
	for goroutines := 1; goroutines <= 3; goroutines++ {
		cfg := mixed(goroutines)
		cfg.Contenders = []Contender{MutexMap()}
		if _, err := Run(t.Context(), cfg); err != nil {
			t.Errorf("%d goroutines: %v", goroutines, err)
		}
	}
}

// What is known about keys that several goroutines wrote is that they exist.
func TestWrongReadsOfSeveralGoroutinesAreFound(t *testing.T) {
	victim := []byte{'k', 7, 0, 0}
	tests := map[string]struct {
		get   func(f *fake, dst, key []byte) ([]byte, error)
		phase string
	}{
		"invents a key": {
			func(f *fake, dst, key []byte) ([]byte, error) {
				dst, _ = f.Target.Get(dst, key)
				return dst, nil
			},
			"nothing there",
		},
		"loses a key for good": {
			func(f *fake, dst, key []byte) ([]byte, error) {
				if bytes.Equal(key, victim) {
					return dst, ErrNotFound
				}
				return f.Target.Get(dst, key)
			},
			"first half",
		},
	}
	for name, test := range tests {
		cfg := mixed(2)
		cfg.Contenders = []Contender{contender("liar", func(f *fake) {
			f.get = func(dst, key []byte) ([]byte, error) { return test.get(f, dst, key) }
		})}
		_, err := Run(t.Context(), cfg)
		var wrong *WrongReadsError
		if !errors.As(err, &wrong) || wrong.Phase != test.phase || wrong.Wrong == 0 {
			t.Errorf("%s: error %v, want wrong reads in phase %q", name, err, test.phase)
		}
	}
	// The same without the phases in which one goroutine comes first.
	cfg := mixed(2)
	cfg.Phases = cfg.Phases[2:4]
	cfg.Contenders = []Contender{contender("liar", func(f *fake) {
		f.get = func(dst, key []byte) ([]byte, error) { return tests["loses a key for good"].get(f, dst, key) }
	})}
	_, err := Run(t.Context(), cfg)
	var wrong *WrongReadsError
	if !errors.As(err, &wrong) || wrong.Phase != "some value" || wrong.Want != "some value" {
		t.Errorf("error %v, want wrong reads in phase %q", err, "some value")
	}
}

func TestNotFoundOfAnotherPackage(t *testing.T) {
	missing := errors.New("no such key")
	cfg := testConfig(10, contender("a", func(f *fake) {
		f.get = func(dst, _ []byte) ([]byte, error) { return dst, missing }
	}))
	cfg.Phases = cfg.Phases[1:]
	if _, err := Run(t.Context(), cfg); !errors.Is(err, missing) {
		t.Errorf("error %v, want the target's", err)
	}
	cfg.NotFound = missing
	if _, err := Run(t.Context(), cfg); err != nil {
		t.Error(err)
	}
}

// Long rows are not copied into order: the loop looks them up.
func TestLongKeysAndValues(t *testing.T) {
	cfg := testConfig(5000, MutexMap())
	cfg.Keys, cfg.Values = workload.NewTable(200, 100), workload.NewTable(1000, 50)
	for i := range 100 {
		cfg.Keys.Append(bytes.Repeat([]byte{byte(i)}, 100+i))
	}
	for i := range 50 {
		cfg.Values.Append(bytes.Repeat([]byte{byte(i)}, 20*i))
	}
	if _, err := Run(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	cfg.Contenders = []Contender{contender("liar", func(f *fake) {
		f.set = func(key, value []byte) error { return f.Target.Set(key, value[:len(value)/2]) }
	})}
	var wrong *WrongReadsError
	if _, err := Run(t.Context(), cfg); !errors.As(err, &wrong) {
		t.Errorf("error %v, want wrong reads", err)
	}
}

func TestMutexMap(t *testing.T) {
	m := NewMutexMap()
	if got, err := m.Get([]byte("x"), []byte("k")); !errors.Is(err, ErrNotFound) || string(got) != "x" {
		t.Errorf("missing key: %q, %v", got, err)
	}
	value := []byte("one")
	for _, v := range []string{"one", "two", "", "longer", "four"} {
		value = append(value[:0], v...)
		if err := m.Set([]byte("k"), value); err != nil {
			t.Fatal(err)
		}
		for i := range value {
			value[i] = '!'
		}
		got, err := m.Get([]byte("x"), []byte("k"))
		if err != nil || string(got) != "x"+v {
			t.Errorf("got %q, %v, want %q", got, err, "x"+v)
		}
	}
	key, same, dst := []byte("k"), []byte("same"), make([]byte, 0, 16)
	if allocs := testing.AllocsPerRun(1000, func() {
		_ = m.Set(key, same)
		_, _ = m.Get(dst, key)
	}); allocs != 0 {
		t.Errorf("%v allocations to overwrite and read", allocs)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
