package suite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
)

// An account is the value of a key of the experiment dataflow.
type account struct {
	balance int64
	changes uint64 // transfers that it was part of
}

// accountBytes is the size of an account in a store, keyBytes that of its key.
const (
	accountBytes = 16
	keyBytes     = 8
)

// opening is what every account begins with.
var opening = account{balance: 100}

func (a account) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(a.balance))
	return binary.LittleEndian.AppendUint64(dst, a.changes)
}

func parseAccount(b []byte) (account, error) {
	if len(b) != accountBytes {
		return account{}, fmt.Errorf("an account of %d bytes", len(b))
	}
	return account{int64(binary.LittleEndian.Uint64(b)), binary.LittleEndian.Uint64(b[8:])}, nil
}

// appendKey appends the key of account number n.
func appendKey(dst []byte, n uint32) []byte { return binary.BigEndian.AppendUint64(dst, uint64(n)) }

// ownerOf returns the worker that has an account, by the hash of its number.
func ownerOf(n uint32, workers int) int {
	owner, _ := bits.Mul64(uint64(n)*0x9E3779B97F4A7C15, uint64(workers))
	return int(owner)
}

// A transfer is a transaction: the first of two or three accounts pays the others,
// if it has the money. What happens depends on what is read, so it depends on the
// order of the transfers, and two that are done in the wrong order, or one that is
// done twice or not at all, leave other balances and other answers.
type transfer struct {
	accounts [3]uint32 // that differ
	n        int       // how many of them
	amount   int64
}

// do changes the accounts, which are in the order of the transfer, and returns the
// answer: what the payer has left.
func (t *transfer) do(a *[3]account) int64 {
	if a[0].balance >= t.amount {
		a[0].balance -= t.amount
		share := t.amount / int64(t.n-1)
		a[1].balance += t.amount - share*int64(t.n-2)
		if t.n == 3 {
			a[2].balance += share
		}
	}
	for i := range t.n {
		a[i].changes++
	}
	return a[0].balance
}

// workersOf returns the workers that have an account of the transfer, each once.
func (t *transfer) workersOf(all int, dst []int) []int {
next:
	for _, n := range t.accounts[:t.n] {
		owner := ownerOf(n, all)
		for _, w := range dst {
			if w == owner {
				continue next
			}
		}
		dst = append(dst, owner)
	}
	return dst
}

// drawTransfers returns transfers between accounts that are drawn uniformly.
func drawTransfers(rng *rand.Rand, n, accounts int) []transfer {
	input := make([]transfer, n)
	for i := range input {
		t := &input[i]
		t.n = 2 + rng.IntN(2)
		t.amount = 1 + rng.Int64N(2*opening.balance/3)
		for j := 0; j < t.n; {
			t.accounts[j] = uint32(rng.IntN(accounts))
			j++
			for _, other := range t.accounts[:j-1] {
				if other == t.accounts[j-1] {
					j-- // drawn before
					break
				}
			}
		}
	}
	return input
}

// sequential does the transfers one after the other: the accounts and answers that
// it returns are what the dataflow must come to.
func sequential(input []transfer, accounts int) ([]account, []int64) {
	state, answers := make([]account, accounts), make([]int64, len(input))
	for i := range state {
		state[i] = opening
	}
	for i := range input {
		t := &input[i]
		var a [3]account
		for j, n := range t.accounts[:t.n] {
			a[j] = state[n]
		}
		answers[i] = t.do(&a)
		for j, n := range t.accounts[:t.n] {
			state[n] = a[j]
		}
	}
	return state, answers
}

// check compares all stores, key by key, and all answers with those of the
// sequential model.
func (f *flow) check() error {
	state, answers := sequential(f.input, f.accounts)
	for i, want := range answers {
		if f.done[i] == 0 {
			return fmt.Errorf("transaction %d was not done", i)
		}
		if f.answers[i] != want {
			return fmt.Errorf("transaction %d answered %d, want %d", i, f.answers[i], want)
		}
	}
	found, wrong := 0, 0
	var first error
	for w, s := range f.stores {
		it := s.Scan(nil, nil)
		for k, v := range it.All() {
			found++
			if err := f.checkAccount(state, w, k, v); err != nil {
				if wrong++; first == nil {
					first = err
				}
			}
		}
		if err := it.Err(); err != nil {
			return err
		}
	}
	if found != f.accounts {
		first = errors.Join(first, fmt.Errorf("%d accounts, want %d", found, f.accounts))
	}
	if first != nil {
		return fmt.Errorf("%d accounts are not as in the model: %w", wrong, first)
	}
	return nil
}

func (f *flow) checkAccount(state []account, worker int, key, value []byte) error {
	if len(key) != keyBytes || binary.BigEndian.Uint64(key) >= uint64(len(state)) {
		return fmt.Errorf("worker %d has the key %#x, which is no account", worker, key)
	}
	n := uint32(binary.BigEndian.Uint64(key))
	if owner := ownerOf(n, f.workers); owner != worker {
		return fmt.Errorf("worker %d has account %d of worker %d", worker, n, owner)
	}
	got, err := parseAccount(value)
	if err == nil && got != state[n] {
		err = fmt.Errorf("it has %+v, want %+v", got, state[n])
	}
	if err != nil {
		return fmt.Errorf("account %d of worker %d: %w", n, worker, err)
	}
	return nil
}
