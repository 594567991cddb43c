package bench

import (
	"context"
	"math"

	"github.com/nikosgavalas/kvstore/internal/workload"
)

// What a read must find, where that is not a row of the table of values.
const (
	// absent: the key was never written.
	absent = math.MaxUint32 - iota
	// present: some value, by one of several goroutines.
	present
	// unknown: another goroutine may have written the key by now, or not.
	unknown
)

// A plan is a phase laid out for its loop: every operation's key and value at
// hand, and what each read must find worked out. It is the same for all
// contenders and repetitions, and read-only once made.
type plan struct {
	phase      Phase
	rate       float64 // operations a second; 0 in a closed loop
	goroutines int

	keys column
	// values are those to write, and those that reads must find.
	values column
	// want is what values refers to: a row of the table, or, for reads,
	// absent, present or unknown.
	want []uint32
	// vague says that some read expects no particular value, so that the
	// column of values does not decide.
	vague bool

	table    *workload.Table // of values
	longest  int             // bytes of the longest value
	notFound error
}

// newPlans lays out all phases. It follows the state of every key through
// them.
func newPlans(ctx context.Context, cfg Config) ([]*plan, error) {
	state := make([]uint32, cfg.Keys.Len())
	for i := range state {
		state[i] = absent
	}
	keys, values := &cfg.Keys, &cfg.Values
	var plans []*plan
	for _, phase := range cfg.Phases {
		p := &plan{
			phase:      phase,
			rate:       phase.Rate,
			goroutines: max(1, phase.Goroutines),
			want:       make([]uint32, len(phase.Keys)),
			table:      values,
			longest:    values.MaxLen(),
			notFound:   cfg.NotFound,
		}
		var err error
		if p.goroutines == 1 {
			err = p.expectInOrder(ctx, state)
		} else {
			err = p.expectInAnyOrder(ctx, state)
		}
		if err != nil {
			return nil, err
		}
		p.keys = newColumn(keys, phase.Keys)
		p.values = newColumn(values, p.want)
		plans = append(plans, p)
	}
	return plans, nil
}

// expectInOrder works out what one goroutine must find, and brings the state
// up to date.
func (p *plan) expectInOrder(ctx context.Context, state []uint32) error {
	return p.each(ctx, func(i int, key uint32) {
		if p.phase.writes(i) {
			state[key] = p.phase.Values[i]
		}
		p.expect(i, state[key])
	})
}

// expectInAnyOrder does the same for several goroutines, of which nothing is
// known but that all of the phase comes after all of the phase before.
func (p *plan) expectInAnyOrder(ctx context.Context, state []uint32) error {
	written := make([]bool, len(state))
	err := p.each(ctx, func(i int, key uint32) {
		if p.phase.writes(i) {
			written[key] = true
		}
	})
	if err != nil {
		return err
	}
	err = p.each(ctx, func(i int, key uint32) {
		switch {
		case p.phase.writes(i):
			p.expect(i, p.phase.Values[i])
		case !written[key]:
			p.expect(i, state[key])
		case state[key] == absent:
			p.expect(i, unknown)
		default:
			p.expect(i, present)
		}
	})
	for key := range state {
		if written[key] {
			state[key] = present
		}
	}
	return err
}

// expect notes what operation i reads or writes.
func (p *plan) expect(i int, want uint32) {
	p.want[i] = want
	p.vague = p.vague || want >= unknown
}

// each calls f for all operations, unless ctx ends.
func (p *plan) each(ctx context.Context, f func(i int, key uint32)) error {
	for i, key := range p.phase.Keys {
		if i%(1<<16) == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		f(i, key)
	}
	return nil
}

// What newColumn copies: cells up to a size that a copy takes no more cache for
// than the index that it saves, and up to a total that takes no noticeable time
// to copy.
const (
	copyCell  = 16
	copyTotal = 64 << 20
)

// A column is what each operation takes from a table. Short rows are copied
// into the order in which the operations use them, so that the loop reads
// memory from front to back and the cache misses on the clock are those of
// the target; long ones are looked up by their index.
type column struct {
	table *workload.Table
	index []uint32 // nil if the rows are in order
}

// newColumn returns the column of the rows that index names. Those that the
// table does not have are empty if they are copied, and must not be asked for.
func newColumn(table *workload.Table, index []uint32) column {
	if table.CellSize() > copyCell || table.CellSize()*len(index) > copyTotal {
		return column{table: table, index: index}
	}
	rows := workload.NewTable(table.MaxLen(), len(index))
	for _, i := range index {
		var row []byte
		if int(i) < table.Len() {
			row = table.At(int(i))
		}
		rows.Append(row)
	}
	return column{table: &rows}
}

// at returns the bytes of operation i.
func (c *column) at(i int) []byte {
	if c.index != nil {
		i = int(c.index[i])
	}
	return c.table.At(i)
}
