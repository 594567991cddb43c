package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// decoded is an object of a JSON line, with the bytes that its members stand
// for.
func decoded(t rapid.TB, line string) map[string]string {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(line), &members); err != nil {
		t.Fatalf("%v: %q", err, line)
	}
	d := make(map[string]string)
	for name, raw := range members {
		var err error
		if plain, ok := strings.CutSuffix(name, "64"); ok {
			var b []byte
			err = json.Unmarshal(raw, &b)
			d[plain] = string(b)
		} else {
			var s string
			err = json.Unmarshal(raw, &s)
			d[name] = s
		}
		if err != nil {
			t.Fatalf("%v: %q", err, line)
		}
	}
	return d
}

// TestAppendMember: any JSON decoder gives the bytes back.
func TestAppendMember(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOf(rapid.Byte()).Draw(t, "a")
		b := []byte(rapid.String().Draw(t, "b"))
		line := append(appendMember(appendMember([]byte("{"), "a", a), "b", b), '}')
		d := decoded(t, string(line))
		if len(d) != 2 || d["a"] != string(a) || d["b"] != string(b) || bytes.Contains(line, []byte("\n")) {
			t.Fatalf("%q, %q became %q", a, b, line)
		}
	})
}
