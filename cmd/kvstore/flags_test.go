package main

import (
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	for word, want := range map[string]time.Duration{
		"0":         0,
		"90m":       90 * time.Minute,
		"7d":        7 * day,
		"0d":        0,
		"1d12h":     36 * time.Hour,
		"1d12h30m":  36*time.Hour + 30*time.Minute,
		"106751d":   106751 * day,
		"1d0.5s":    day + time.Second/2,
		"106751d0h": 106751 * day,
	} {
		if got, err := parseDuration(word); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", word, got, err, want)
		}
	}
	for _, word := range []string{
		"", "d", "7", "-1h", "-7d", "7d-1h", "1.5d", "1h2d", "7dd", "1d1", "106752d", "213504d", "106751d24h", "18446744073709551616d", "week",
	} {
		if got, err := parseDuration(word); err == nil {
			t.Errorf("%q is %v, want an error", word, got)
		}
	}
}
