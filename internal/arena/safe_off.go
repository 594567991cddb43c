//go:build !safeheap && !race

package arena

const safeHeap = false
