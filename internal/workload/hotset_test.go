package workload

import "testing"

// rangeOf returns the range that index i of n falls into.
func rangeOf(i uint32, n int) int {
	for r := range 5 {
		if int(i) < (r+1)*n/5 {
			return r
		}
	}
	panic("index out of range")
}

func TestHotRangeRotates(t *testing.T) {
	for _, n := range []int{5, 7, 100, 1_000_003} {
		gen := NewHotSet(newRand(1), n)
		const turns = 200
		for turn := range turns {
			var counts [5]int
			for range 100 {
				counts[rangeOf(gen.Next(), n)]++
			}
			// 90 expected, 3 the standard deviation.
			if got := counts[turn%5]; got < 75 {
				t.Fatalf("n %d, turn %d: range %d was drawn %d times in 100, want about 90: %v",
					n, turn, turn%5, got, counts)
			}
		}
	}
}

func TestHotSetFrequencies(t *testing.T) {
	const n, turns = 50, 20_000
	gen := NewHotSet(newRand(2), n)
	hot, counts := 0, make([]int, n) // counts by distance from the start of the hot range
	for turn := range turns {
		for range 100 {
			i := (int(gen.Next()) - turn%5*n/5 + n) % n
			counts[i]++
			if i < n/5 {
				hot++
			}
		}
	}
	const draws = turns * 100
	expected := make([]float64, n)
	for i := range expected {
		if i < n/5 {
			expected[i] = draws * 0.9 / (n / 5)
		} else {
			expected[i] = draws * 0.1 / (n * 4 / 5)
		}
	}
	chiSquare(t, counts, expected)
	if share := float64(hot) / draws; share < 0.898 || share > 0.902 {
		t.Errorf("the hot range got %.4f of the draws, want 0.9", share)
	}
}

func TestHotSetOfTwo(t *testing.T) {
	gen := NewHotSet(newRand(1), 2)
	for turn := range 100 {
		hot := 0
		for range 100 {
			if int(gen.Next()) == turn%2 {
				hot++
			}
		}
		if hot < 75 {
			t.Fatalf("turn %d: the hot one of two was drawn %d times in 100", turn, hot)
		}
	}
}
