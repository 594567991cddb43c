//go:build !linux

package main

import "time"

// The times are measured everywhere, the rest only on Linux.

func allocate[T draw | uint32 | held](n int) []T { return make([]T, n) }

func readMemory() (memory, error) { return memory{}, nil }

func syncFiles(string) error { return nil }

func readWritten() (int64, error) { return 0, nil }

func processTime() time.Duration { return 0 }

func diskBytes(string) (int64, error) { return 0, nil }
