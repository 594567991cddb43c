package suite

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/bench"
	"github.com/nikosgavalas/kvstore/internal/workload"
)

// A Work is keys, values and phases: what contenders do. It is drawn when it is
// needed, always the same.
type Work struct {
	// Keys is the number of distinct keys, and KeyBytes and ValueBytes are the
	// sizes of all.
	Keys, KeyBytes, ValueBytes int
	Phases                     []Phase
	// Draw, unless nil, draws all of it, except for the names of the phases.
	Draw func(context.Context) (bench.Config, error)
}

// A Phase is some operations on the keys of a Work.
type Phase struct {
	Name string
	// Ops is the number of operations, Rate how many are started each second;
	// 0 is as many as possible.
	Ops  int
	Rate float64
	// Keys draws the keys; nil stands for each in turn.
	Keys func(*rand.Rand, int) workload.Generator
	// Reads is the share of reads, the others write.
	Reads float64
	// Goroutines share the operations; 0 stands for one.
	Goroutines int
	// Limit ends the phase, which must be the last then.
	Limit time.Duration
	// Draw draws a phase that is more than that: it fills in Keys, Values and
	// Ops. Values must be less than valueRows, unless they are of scans.
	Draw func(*rand.Rand, *bench.Phase)
}

// Uniform and Zipfian are Keys for phases.
func Uniform(rng *rand.Rand, n int) workload.Generator { return workload.NewUniform(rng, n) }

// Zipfian draws with the customary skew.
func Zipfian(rng *rand.Rand, n int) workload.Generator {
	return workload.NewZipfian(rng, n, workload.DefaultTheta)
}

// inTurnGenerator draws each index in turn.
type inTurnGenerator struct{ next, n uint32 }

func (g *inTurnGenerator) Next() uint32 {
	i := g.next
	g.next = (g.next + 1) % g.n
	return i
}

// valueRows is the number of different values. They are random, so that nothing
// can be made smaller.
const valueRows = 1024

func (w *Work) names() []string {
	if w == nil {
		return nil
	}
	var names []string
	for _, p := range w.Phases {
		names = append(names, p.Name)
	}
	return names
}

// lay draws the work and lays it out.
func (w *Work) lay(ctx context.Context) (*bench.Script, error) {
	if w.Draw != nil {
		cfg, err := w.Draw(ctx)
		if err != nil {
			return nil, err
		}
		return bench.NewScript(ctx, cfg)
	}
	cfg := bench.Config{
		Keys:     keyTable(w.Keys, w.KeyBytes),
		Values:   valueTable(w.ValueBytes),
		NotFound: kvstore.ErrNotFound,
	}
	for i, p := range w.Phases {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// Each from numbers of its own: none depends on another.
		cfg.Phases = append(cfg.Phases, p.draw(rand.New(rand.NewPCG(seed, uint64(i+1))), w.Keys))
	}
	return bench.NewScript(ctx, cfg)
}

func (p Phase) draw(rng *rand.Rand, keys int) bench.Phase {
	drawn := bench.Phase{Name: p.Name, Goroutines: p.Goroutines, Rate: p.Rate, Limit: p.Limit}
	if p.Draw != nil {
		p.Draw(rng, &drawn)
		return drawn
	}
	var gen workload.Generator = &inTurnGenerator{n: uint32(keys)}
	if p.Keys != nil {
		gen = p.Keys(rng, keys)
	}
	drawn.Keys = workload.Draw(gen, p.Ops)
	if p.Reads < 1 {
		drawn.Values = workload.Draw(workload.NewUniform(rng, valueRows), p.Ops)
	}
	if p.Reads > 0 && p.Reads < 1 {
		drawn.Ops = workload.Mix{Reads: p.Reads}.Draw(rng, p.Ops)
	}
	return drawn
}

// keyTable returns n different keys of a size, in no order.
func keyTable(n, size int) workload.Table {
	t := workload.NewTable(size, n)
	key := make([]byte, max(8, size))
	bits := 8 * min(8, size)
	for i := range uint64(n) {
		// Multiplying by an odd number is one to one in any number of low bits.
		h := i * 0x9E3779B97F4A7C15 << (64 - bits)
		binary.BigEndian.PutUint64(key, h)
		t.Append(key[:size])
	}
	return t
}

func valueTable(size int) workload.Table {
	rng := rand.New(rand.NewPCG(seed, 0))
	t := workload.NewTable(size, valueRows)
	value := make([]byte, size)
	for range valueRows {
		for i := range value {
			value[i] = byte(rng.Uint32())
		}
		t.Append(value)
	}
	return t
}
