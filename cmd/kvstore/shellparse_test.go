package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestParseLine(t *testing.T) {
	for _, tt := range []struct {
		line string
		want []string
	}{
		{"", nil},
		{" \t\r", nil},
		{"# set a 1", nil},
		{"  # set a 1", nil},
		{"set a 1", []string{"set", "a", "1"}},
		{"  set\ta  1 \r", []string{"set", "a", "1"}},
		{"set a #1", []string{"set", "a", "#1"}},
		{`set b "two words"`, []string{"set", "b", "two words"}},
		{`set b ""`, []string{"set", "b", ""}},
		{`"set" "a" "1"`, []string{"set", "a", "1"}},
		{`"# no comment"`, []string{"# no comment"}},
		{`set \x00\xff\xFf "\x00 \xAb"`, []string{"set", "\x00\xff\xff", "\x00 \xab"}},
		{`set \\ \"\n\t\r "\\ \"\n\t\r"`, []string{"set", `\`, "\"\n\t\r", "\\ \"\n\t\r"}},
		{`\x41\x5cx41`, []string{`A\x41`}},
		{"set é 日本語", []string{"set", "é", "日本語"}},
		{"set \xff\xfe 1", []string{"set", "\xff\xfe", "1"}},
		{"set a\u00a0b 1", []string{"set", "a\u00a0b", "1"}},
		{"set 'a b'", []string{"set", "'a", "b'"}},
	} {
		words, err := parseLine([]byte(tt.line))
		if err != nil {
			t.Errorf("parseLine(%q): %v", tt.line, err)
			continue
		}
		if got := toStrings(words); !slices.Equal(got, tt.want) {
			t.Errorf("parseLine(%q) = %q, want %q", tt.line, got, tt.want)
		}
	}
}

func TestParseLineErrors(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{`set a "1`, "column 7: quote is not closed"},
		{`set a "1\"`, "column 7: quote is not closed"},
		{`set a 1"`, `column 8: quote inside a word: write \" or quote the whole word`},
		{`set é 1"`, `column 8: quote inside`},
		{`set a "1"2`, "column 10: missing space after the closing quote"},
		{`set a ""#`, "column 9: missing space after the closing quote"},
		{`set a \`, `column 7: backslash at the end of the line`},
		{`set a "\`, `column 8: backslash at the end of the line`},
		{`set a \q`, `column 7: unknown escape`},
		{`set a \x`, `column 7: \x needs two hexadecimal digits`},
		{`set a \x1`, `column 7: \x needs two hexadecimal digits`},
		{`set a \xg1`, `column 7: \x needs two hexadecimal digits`},
		{`set a "\x1"`, `column 8: \x needs two hexadecimal digits`},
	} {
		words, err := parseLine([]byte(tt.line))
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || words != nil {
			t.Errorf("parseLine(%q) = %q, %v; want error %q", tt.line, words, err, tt.want)
		}
	}
}

// The words must outlive the line, whose buffer is used again, and must not
// grow into each other.
func TestParseLineCopies(t *testing.T) {
	line := []byte("set a 1")
	words, err := parseLine(line)
	if err != nil {
		t.Fatal(err)
	}
	copy(line, "xxxxxxx")
	_ = append(words[0], "xxx"...)
	if got := toStrings(words); !slices.Equal(got, []string{"set", "a", "1"}) {
		t.Errorf("words changed with the line: %q", got)
	}
}

func TestFormatLine(t *testing.T) {
	for _, tt := range []struct {
		words []string
		want  string
	}{
		{nil, ``},
		{[]string{""}, `""`},
		{[]string{"a", "b"}, `a b`},
		{[]string{"two words", `"`, `a"b`}, `"two words" "\"" "a\"b"`},
		{[]string{"#a", "a#"}, `"#a" a#`},
		{[]string{"a\\b\n\t\r\v"}, `a\\b\n\t\r\x0b`},
		{[]string{"\x00\x7f\xff", "é日本語😀"}, `\x00\x7f\xff é日本語😀`},
		{[]string{"\ufffd", "\u00a0", "\u202e", "\u2028"}, "\ufffd \\xc2\\xa0 \\xe2\\x80\\xae \\xe2\\x80\\xa8"},
	} {
		var words [][]byte
		for _, w := range tt.words {
			words = append(words, []byte(w))
		}
		if got := string(formatLine(words...)); got != tt.want {
			t.Errorf("formatLine(%q) = %s, want %s", tt.words, got, tt.want)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	for _, s := range []string{
		"", "# x", `set a "two words"`, `set \x00\xff "\\\"\n\t\r"`, `"`, `\`, `\x4`, "a\"b", "#", " \v\f", "\xf0\x9f",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// Whatever parses is the same after being formatted.
		if words, err := parseLine(data); err == nil {
			checkRoundTrip(t, words)
		}
		// Any bytes can be words.
		checkRoundTrip(t, bytes.Split(data, []byte{'s'}))
	})
}

func checkRoundTrip(t *testing.T, words [][]byte) {
	t.Helper()
	line := formatLine(words...)
	got, err := parseLine(line)
	if err != nil {
		t.Fatalf("%q formats to %q, which does not parse: %v", words, line, err)
	}
	if !slices.EqualFunc(got, words, bytes.Equal) {
		t.Fatalf("%q formats to %q, which parses to %q", words, line, got)
	}
	if i := bytes.IndexFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		t.Fatalf("%q formats to %q, with a control character", words, line)
	}
}

func toStrings(words [][]byte) []string {
	var s []string
	for _, w := range words {
		s = append(s, string(w))
	}
	return s
}
