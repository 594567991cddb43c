package s3

import (
	"strings"
	"testing"
)

func TestURL(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "xx-default")
	for rawURL, want := range map[string]struct {
		text, endpoint, prefix, region string
		aws                            bool
	}{
		"s3://data":   {"s3://data", "https://s3.amazonaws.com", "", "xx-default", true},
		"S3://data/":  {"s3://data", "https://s3.amazonaws.com", "", "xx-default", true},
		"s3://d-0.1x": {"s3://d-0.1x", "https://s3.amazonaws.com", "", "xx-default", true},
		"s3://data/a/b/?region=eu-central-1&style=host": {
			"s3://data/a/b?region=eu-central-1&style=host", "https://s3.amazonaws.com", "a/b", "eu-central-1", true},
		"s3://data/a?endpoint=http://127.0.0.1:9000": {
			"s3://data/a?endpoint=http://127.0.0.1:9000", "http://127.0.0.1:9000", "a", "xx-default", false},
		"s3://data/a?style=path&endpoint=storage.example.com:9000": {
			"s3://data/a?endpoint=https://storage.example.com:9000&style=path", "https://storage.example.com:9000", "a", "xx-default", false},
		"s3://data?endpoint=https%3A%2F%2F[::1]:9000/": {
			"s3://data?endpoint=https://[::1]:9000", "https://[::1]:9000", "", "xx-default", false},
		"s3://data?endpoint=s3.eu-west-1.amazonaws.com": {
			"s3://data?endpoint=https://s3.eu-west-1.amazonaws.com", "https://s3.eu-west-1.amazonaws.com", "", "xx-default", true},
		"s3://data?endpoint=http://s3.eu-west-1.amazonaws.com": {
			"s3://data?endpoint=http://s3.eu-west-1.amazonaws.com", "http://s3.eu-west-1.amazonaws.com", "", "xx-default", false},
	} {
		b, err := Open(rawURL)
		if err != nil {
			t.Errorf("%s: %v", rawURL, err)
			continue
		}
		s := b.(*store)
		if b.String() != want.text || s.endpoint() != want.endpoint || s.prefix != want.prefix || s.regionOf() != want.region || s.aws() != want.aws {
			t.Errorf("%s: %s, %+v", rawURL, b, s.address)
		}
		again, err := Open(b.String())
		must(t, err)
		if again.(*store).address != s.address {
			t.Errorf("%s is not what %s says", b, rawURL)
		}
	}
}

func TestWrongURL(t *testing.T) {
	const secret = "hunter2"
	for rawURL, want := range map[string]string{
		"s3:data":                               "malformed",
		"s3://":                                 "names no bucket",
		"s3:///prefix":                          "names no bucket",
		"s3://data#hunter2":                     "malformed",
		"s3://key:hunter2@data/p":               "AWS_SECRET_ACCESS_KEY",
		"s3://key:hun/ter2@data/hunter2":        "malformed",
		"s3://key:hunter2%zz@data":              "malformed",
		"s3://127.0.0.1:9000/data":              "?endpoint=",
		"s3://a":                                "bucket",
		"s3://data/a//b":                        "prefix",
		"s3://data/a%20b":                       "prefix",
		"s3://data/../b":                        "prefix",
		"s3://data?endpoint":                    "http://host:port",
		"s3://data?endpoint=ftp://127.0.0.1":    "http://host:port",
		"s3://data?endpoint=http://127.0.0.1/x": "http://host:port",
		"s3://data?endpoint=http://127.0.0.1:x": "http://host:port",
		"s3://data?endpoint=http://key:hunter2@127.0.0.1": "AWS_SECRET_ACCESS_KEY",
		"s3://data?endpoint=http://a_b!c":                 "endpoint",
		"s3://data?endpoint=a:1&endpoint=b:1":             "more than once",
		"s3://data?style=hunter2":                         "neither path nor host",
		"s3://data?secret_key=hunter2":                    `"secret_key"`,
		"s3://data?region=a;hunter2":                      "malformed",
		"s3://data?hunter%zz":                             "malformed",
	} {
		b, err := Open(rawURL)
		if err == nil {
			t.Errorf("%s: opened as %s", rawURL, b)
			continue
		}
		if text := err.Error(); !strings.Contains(text, want) || strings.Contains(text, secret) || strings.Contains(text, "hun") {
			t.Errorf("%s: %v", rawURL, err)
		}
	}
}

// TestOtherURL opens what bucket.Open does.
func TestOtherURL(t *testing.T) {
	b, err := Open("mem://")
	must(t, err)
	if _, ok := b.(*store); ok {
		t.Errorf("mem:// is %s", b)
	}
	if _, err := Open("gopher://x"); err == nil {
		t.Error("gopher:// was opened")
	}
}
