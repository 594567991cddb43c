package enginetest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/engine"
	"go.uber.org/goleak"
)

// childVariable holds the directory that a child process of CrashKill works in.
const childVariable = "KVSTORE_KILL_TEST_DIR"

// killsVariable sets how often CrashKill kills; the default is defaultKills.
const (
	killsVariable = "KVSTORE_KILLS"
	defaultKills  = 20
)

// Main is the TestMain of an engine that uses CrashKill or Benchmark: it is the
// child process if one of them started it, and otherwise runs the tests and checks that
// no goroutine is left.
func Main(m *testing.M, e kvstore.Engine) {
	if dir := os.Getenv(childVariable); dir != "" {
		fmt.Fprintln(os.Stderr, child(e, dir))
		os.Exit(1)
	}
	if dir := os.Getenv(loadVariable); dir != "" {
		fmt.Fprintln(os.Stderr, loadAndDie(e, dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// CrashKill kills a process that writes as fast as it can, again and again, and
// checks each time that nothing is lost that was promised, and nothing is there
// in part.
func CrashKill(t *testing.T, e kvstore.Engine) {
	kills := defaultKills
	if v := os.Getenv(killsVariable); v != "" {
		var err error
		if kills, err = strconv.Atoi(v); err != nil || kills < 1 {
			t.Fatalf("%s=%q is not a number of kills", killsVariable, v)
		}
	}
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	done := uint64(0)
	for i := range kills {
		promised, err := killOnce(e, dir, time.Duration(rng.IntN(60_000))*time.Microsecond)
		if err != nil {
			t.Fatal(err)
		}
		found, err := countOperations(e, dir)
		if err != nil {
			t.Fatalf("after kill %d: %v", i, err)
		}
		if found < max(promised, done) {
			t.Fatalf("after kill %d: the store has %d operations, %d were promised", i, found, max(promised, done))
		}
		done = found
	}
	t.Logf("%d kills, %d operations survived", kills, done)
}

// killOnce starts a child, kills it after it has worked for some time, and
// returns how many operations it was promised to find again.
func killOnce(e kvstore.Engine, dir string, after time.Duration) (promised uint64, err error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); err != nil || line != "open\n" {
		return 0, fmt.Errorf("the child said %q, %w", line, errors.Join(err, cmd.Process.Kill(), cmd.Wait()))
	}
	timer := time.AfterFunc(after, func() { cmd.Process.Kill() })
	defer timer.Stop()
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break // what it was saying when it died does not count
		} else if err != nil {
			return 0, err
		}
		if promised, err = strconv.ParseUint(line[:len(line)-1], 10, 64); err != nil {
			return 0, err
		}
	}
	if err := cmd.Wait(); cmd.ProcessState.Exited() {
		return 0, fmt.Errorf("the child ended by itself: %w", err)
	}
	return promised, nil
}

// child writes until it is killed, or fails. It says which operations it was promised:
// for the classes Cuts and Prefix those in each completed snapshot, else each one
// when it returned.
func child(e kvstore.Engine, dir string) error {
	s, err := kvstore.Open(dir, kvstore.Options{Engine: e})
	if err != nil {
		return err
	}
	n, err := counter(s)
	if err != nil {
		return err
	}
	fmt.Println("open")
	say := func(n uint64) { os.Stdout.WriteString(strconv.FormatUint(n, 10) + "\n") }
	base, _ := s.Base()
	id := base.ID
	var last *kvstore.Snapshot
	for {
		n++
		var b kvstore.Batch
		for _, w := range operation(n) {
			if w.remove {
				b.Delete([]byte(w.key))
			} else {
				b.Set([]byte(w.key), []byte(w.value))
			}
		}
		b.Set([]byte(counterKey), strconv.AppendUint(nil, n, 10))
		if err := s.Apply(&b); err != nil {
			return err
		}
		if c := e.Driver().Class(); c == engine.Log || c == engine.Synced {
			say(n)
		}
		if n%100 == 0 {
			if last != nil {
				if err := last.Wait(ctx); err != nil {
					return err
				}
				say(n - 100)
			}
			id++
			if last, err = s.Snapshot(ctx, id, strconv.AppendUint(nil, n, 10)); err != nil {
				return err
			}
		}
	}
}

const counterKey = "operations"

// operation returns the writes of operation n, always the same.
func operation(n uint64) []write {
	rng := rand.New(rand.NewPCG(n, 1))
	writes := make([]write, 1+rng.IntN(3))
	for i := range writes {
		writes[i] = write{
			key:    fmt.Sprint("k", rng.IntN(200)),
			value:  fmt.Sprint(n, ".", i),
			remove: rng.IntN(4) == 0,
		}
	}
	return writes
}

func counter(s *kvstore.Store) (uint64, error) {
	v, err := s.Get(nil, []byte(counterKey))
	if errors.Is(err, kvstore.ErrNotFound) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(v), 10, 64)
}

// countOperations returns n if the store holds the first n operations and
// nothing else, and its last snapshot what its metadata says.
func countOperations(e kvstore.Engine, dir string) (uint64, error) {
	s, err := kvstore.Open(dir, kvstore.Options{Engine: e})
	if err != nil {
		return 0, err
	}
	n, err := counter(s)
	if err != nil {
		return 0, errors.Join(err, s.Close())
	}
	c, err := read(s)
	if err == nil && !maps.Equal(c, replay(n)) {
		err = fmt.Errorf("the store says that it has %d operations, and has something else", n)
	}
	if base, _ := s.Base(); err == nil && base.ID != 0 {
		err = checkBase(dir, base)
	}
	return n, errors.Join(err, s.Close())
}

func checkBase(dir string, base kvstore.SnapshotInfo) error {
	at, err := strconv.ParseUint(string(base.Meta), 10, 64)
	if err != nil {
		return err
	}
	v, err := kvstore.OpenSnapshot(ctx, dir, base.Ref)
	if err != nil {
		return err
	}
	c, err := read(v)
	if err == nil && !maps.Equal(c, replay(at)) {
		err = fmt.Errorf("snapshot %d does not hold the %d operations of its metadata", base.ID, at)
	}
	return errors.Join(err, v.Close())
}

// replay returns the state after n operations.
func replay(n uint64) content {
	c := content{}
	for i := uint64(1); i <= n; i++ {
		for _, w := range operation(i) {
			if w.remove {
				delete(c, w.key)
			} else {
				c[w.key] = w.value
			}
		}
	}
	if n > 0 {
		c[counterKey] = strconv.FormatUint(n, 10)
	}
	return c
}
