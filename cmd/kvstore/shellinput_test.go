package main

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestReaderInput(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"\n", []string{""}},
		{"a", []string{"a"}},
		{"a\nb", []string{"a", "b"}},
		{"a\n\nb\r\n", []string{"a", "", "b\r"}},
		{long + "\n" + long, []string{long, long}},
	} {
		in := newReaderInput(io.NopCloser(strings.NewReader(tt.text)), "")
		var got []string
		for {
			line, err := in.read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(line))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%.20q: got %.20q, want %.20q", tt.text, got, tt.want)
		}
	}
}

// A line beyond the limit is skipped without being kept, and the next one is
// read.
func TestReaderInputTooLong(t *testing.T) {
	const limit = 100 << 10
	for _, end := range []string{"\nnext\n", ""} {
		in := newReaderInput(io.NopCloser(strings.NewReader(strings.Repeat("x", 10*limit)+end)), "")
		in.max = limit
		if line, err := in.read(); !errors.Is(err, errLineTooLong) {
			t.Fatalf("a line of %d bytes, %v; want %v", len(line), err, errLineTooLong)
		}
		if cap(in.line) > 2*limit {
			t.Errorf("kept %d bytes of a line that may have %d", cap(in.line), limit)
		}
		line, err := in.read()
		if end == "" && !errors.Is(err, io.EOF) || end != "" && string(line) != "next" {
			t.Errorf("after the long line: %q, %v", line, err)
		}
	}
}

// ready must be true only if read does not wait.
func TestReaderInputReady(t *testing.T) {
	r, w := io.Pipe()
	in := newReaderInput(r, "")
	if in.ready() {
		t.Error("ready before there is any input")
	}
	go w.Write([]byte("a\nb\nc"))
	for i, want := range []bool{true, false} {
		if line, err := in.read(); err != nil || !bytes.Equal(line, []byte{"ab"[i]}) {
			t.Fatalf("got %q, %v", line, err)
		}
		if in.ready() != want {
			t.Errorf("after line %d: ready %v, want %v", i+1, !want, want)
		}
	}
}

func TestCompleteCommand(t *testing.T) {
	for _, tt := range []struct {
		line string
		want []string
	}{
		{"roll", []string{"rollback "}},
		{"snap", []string{"snapshot ", "snapshots "}},
		{"set k", nil},
		{"zzz", nil},
	} {
		if got := completeCommand(tt.line); !slices.Equal(got, tt.want) {
			t.Errorf("completeCommand(%q) = %q, want %q", tt.line, got, tt.want)
		}
	}
}
