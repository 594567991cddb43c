package enginetest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/nikosgavalas/kvstore"
)

// call is one operation of a history that porcupine checks: a key is one of two
// bytes, the state is the value of both, "" for none.
type call struct {
	op    string // get, set, delete, append, both
	key   int
	value string
}

var registers = porcupine.NondeterministicModel{
	Init: func() []any { return []any{[2]string{}} },
	Step: func(state, input, output any) []any {
		s, c := state.([2]string), input.(call)
		switch c.op {
		case "get":
			if output.(string) != s[c.key] {
				return nil
			}
		case "set":
			s[c.key] = c.value
		case "delete":
			s[c.key] = ""
		case "append":
			s[c.key] += c.value
		case "both":
			s = [2]string{c.value, c.value}
		}
		return []any{s}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %v", input, output) },
}

// Linearizable checks with porcupine that concurrent calls, batches among them,
// take effect at one moment between their call and their return, while
// snapshots are taken.
func Linearizable(t *testing.T, e kvstore.Engine) {
	const clients, calls, rounds = 4, 40, 10
	for round := range uint64(rounds) {
		s := &store{t: t, engine: e, dir: t.TempDir()}
		s.open()
		var mu sync.Mutex
		var history []porcupine.Operation
		var wg sync.WaitGroup
		begin := time.Now()
		for client := range clients {
			rng := rand.New(rand.NewPCG(round, uint64(client)))
			wg.Go(func() {
				for i := range calls {
					c := call{op: []string{"get", "get", "set", "delete", "append", "both"}[rng.IntN(6)], key: rng.IntN(2)}
					c.value = fmt.Sprintf("%d.%d;", client, i)
					start := time.Since(begin)
					out, err := s.run(c)
					end := time.Since(begin)
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					history = append(history, porcupine.Operation{
						ClientId: client, Input: c, Output: out, Call: start.Nanoseconds(), Return: end.Nanoseconds(),
					})
					mu.Unlock()
				}
			})
		}
		wg.Go(func() {
			for id := range uint64(3) {
				sn, err := s.Snapshot(ctx, id+1, nil)
				if err != nil || sn.Wait(ctx) != nil {
					t.Error("a snapshot failed")
				}
			}
		})
		wg.Wait()
		switch porcupine.CheckOperationsTimeout(registers.ToModel(), history, 20*time.Second) {
		case porcupine.Illegal:
			t.Errorf("round %d: %d calls are not linearizable", round, len(history))
		case porcupine.Unknown:
			t.Logf("round %d: there was no time to check %d calls", round, len(history))
		}
		s.close()
	}
}

func (s *store) run(c call) (out string, err error) {
	key := []byte{byte('a' + c.key)}
	switch c.op {
	case "get":
		v, err := s.Get(nil, key)
		if err == kvstore.ErrNotFound {
			err = nil
		}
		return string(v), err
	case "set":
		err = s.Set(key, []byte(c.value))
	case "delete":
		err = s.Delete(key)
	case "append":
		err = s.Update(key, func(dst, old []byte, _ bool) ([]byte, kvstore.Op) {
			return append(append(dst, old...), c.value...), kvstore.Put
		})
	case "both":
		var b kvstore.Batch
		b.Set([]byte("a"), []byte(c.value))
		b.Set([]byte("b"), []byte(strings.Clone(c.value)))
		err = s.Apply(&b)
	}
	return "", err
}
