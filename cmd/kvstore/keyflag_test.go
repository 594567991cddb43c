package main

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// TestParseEscaped: what is printed can be given as an argument, and so can
// plain text.
func TestParseEscaped(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOf(rapid.Byte()).Draw(t, "key")
		if got, err := parseEscaped(string(appendEscaped(nil, key))); err != nil || !bytes.Equal(got, key) {
			t.Fatalf("%q became %q, %v", key, got, err)
		}
	})
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{`say "hi" # now`, `say "hi" # now`},
		{`\x41\\\"\n\t\r`, "A\\\"\n\t\r"},
	} {
		if got, err := parseEscaped(tt.text); err != nil || string(got) != tt.want {
			t.Errorf("%q became %q, %v, want %q", tt.text, got, err, tt.want)
		}
	}
}
