//go:build !race

package lsmtree

// slower is by how much less is done.
const slower = 1
