package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/nikosgavalas/kvstore"
)

func exportLine(key, value []byte) []byte {
	return (&scanOptions{asJSON: true}).appendLine(nil, key, value)
}

func TestPairParser(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	var p pairParser
	for _, c := range []struct{ line, key, value string }{
		{`{"key":"a","value":"b"}`, "a", "b"},
		{` { "value" : "b" , "key" : "a" } ` + "\r", "a", "b"},
		{`{"key":"a","value":""}`, "a", ""},
		{`{"value64":"","key64":"YQ=="}`, "a", ""},
		{`{"key64":"/\/8=","value":"\"\\\/\b\f\n\r\t\u0041\u00e9\ud83d\ude00"}`, "\xff\xff", "\"\\/\b\f\n\r\tAé😀"},
		{`{"k\u0065y":"a","value64":"AAEC"}`, "a", "\x00\x01\x02"},
		{"{\"key\":\"\u2028\",\"value\":\"\\u2028\"}", "\u2028", "\u2028"},
		{string(exportLine(all, all[:128])), string(all), string(all[:128])},
	} {
		key, value, err := p.parse([]byte(c.line))
		if err != nil || string(key) != c.key || string(value) != c.value {
			t.Errorf("%s is %q, %q, %v; want %q, %q", c.line, key, value, err, c.key, c.value)
		}
	}
}

func TestPairParserErrors(t *testing.T) {
	var p pairParser
	for line, want := range map[string]string{
		``:                                         "expected an object",
		`{`:                                        "expected a name",
		`{}`:                                       "no key",
		`[]`:                                       "at byte 1: expected an object",
		`{"key":"a"}`:                              "no value",
		`{"value":"a"}`:                            "no key",
		`{"key":"a","value":"b"`:                   "expected a comma or }",
		`{"key":"a","value":"b",}`:                 "expected a name",
		`{"key":"a","value":"b"} {}`:               "at byte 25: expected the end",
		`{"key":"a" "value":"b"}`:                  "expected a comma",
		`{"key","a"}`:                              "expected a colon",
		`{"key":1,"value":"b"}`:                    "at byte 8: expected a string",
		`{"key":null,"value":"b"}`:                 "expected a string",
		`{"key":"a","value":"b`:                    "closes a string",
		`{"key":"a","value":"b\`:                   "expected an escape",
		`{"key":"a\x","value":"b"}`:                "expected an escape",
		`{"key":"a\u12g4","value":"b"}`:            "expected an escape",
		`{"key":"a\ud83d","value":"b"}`:            "both halves",
		`{"key":"\ude00\ud83d","value":"b"}`:       "both halves",
		"{\"key\":\"a\tb\",\"value\":\"b\"}":       `\u0009`,
		"{\"key\":\"\xff\",\"value\":\"b\"}":       "not UTF-8",
		`{"key":"a","Value":"b"}`:                  "unknown name",
		`{"key":"a","value":"b","ttl":"1"}`:        "unknown name \"ttl\"",
		`{"key":"a","key":"a","value":"b"}`:        "two keys",
		`{"key":"a","key64":"YQ==","value":"b"}`:   "two keys",
		`{"key":"a","value":"b","value64":"Yg=="}`: "two values",
		`{"key64":"YQ","value":"b"}`:               "base64",
		`{"key64":"YR==","value":"b"}`:             "base64",
		`{"key64":"Y-==","value":"b"}`:             "base64",
		`{"key64":"YQ==\n","value":"b"}`:           "line break",
		`{"key":"","value":"b"}`:                   "invalid key",
		`{"key64":"","value":"b"}`:                 "invalid key",
		`{"key":"` + strings.Repeat("k", 65536) + `","value":""}`:               "65536 bytes",
		`{"key":"k","value":"` + strings.Repeat("v", kvstore.MaxValue+1) + `"}`: "at most",
	} {
		if key, value, err := p.parse([]byte(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100s is %q, %q, %v; want an error with %q", line, key, value, err, want)
		}
	}
}

// FuzzImportLine parses any line: it agrees with the JSON of the standard library
// where that says what it is, and what export writes comes back.
func FuzzImportLine(f *testing.F) {
	for _, line := range []string{
		`{"key":"a","value":"b"}`, `{"value64":"","key64":"YQ=="}`, `{"key":"\ud83d\ude00\u0000\/","value":"\\"}`,
		`{"key":"a","value":"b","key64":"YQ=="}`, "{\"key\":\"\xff\",\"value\":\"\"}", `{"key":"\ud83d","value":""}`, `{}`, "\x00\xff",
	} {
		f.Add([]byte(line), []byte(line))
	}
	f.Fuzz(func(t *testing.T, line, other []byte) {
		var p pairParser
		key, value, err := p.parse(bytes.Clone(line))
		if err == nil {
			var want struct {
				Key, Value     *string
				Key64, Value64 []byte
			}
			if err := json.Unmarshal(line, &want); err != nil {
				t.Fatalf("%q is parsed, and no JSON: %v", line, err)
			}
			if want.Key != nil {
				want.Key64 = []byte(*want.Key)
			}
			if want.Value != nil {
				want.Value64 = []byte(*want.Value)
			}
			if !bytes.Equal(key, want.Key64) || !bytes.Equal(value, want.Value64) {
				t.Fatalf("%q is %q, %q; want %q, %q", line, key, value, want.Key64, want.Value64)
			}
		}
		if len(line) == 0 || len(line) > kvstore.MaxKey {
			return
		}
		written := exportLine(line, other)
		if n := bytes.IndexByte(written, '\n'); n != len(written)-1 || !json.Valid(written) {
			t.Fatalf("%q is not a line of JSON", written)
		}
		key, value, err = p.parse(written)
		if err != nil || !bytes.Equal(key, line) || !bytes.Equal(value, other) {
			t.Fatalf("%q, %q come back as %q, %q, %v", line, other, key, value, err)
		}
	})
}
