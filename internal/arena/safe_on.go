//go:build safeheap || race

package arena

// safeHeap puts every arena on the Go heap.
const safeHeap = true
