package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/nikosgavalas/kvstore"
)

// The lines that export writes and import reads are JSON objects, as scan --json
// prints them:
//
//	{"key":"text","value":"text"}
//	{"key64":"base64","value64":"base64"}
//
// Text is valid UTF-8, whatever characters there are in it. All other bytes are
// in standard base64 with padding, under a name with 64 at its end. So each pair
// of bytes has a line, and each line that import takes means exactly one pair:
// it is stricter than most readers of JSON, which take the last of two members
// of one name, and put another character where a string has half of one.
//
// The id and the metadata of the snapshot are not in the lines, as they are no
// pair; snapshots --json prints them, and import takes them as flags.

// maxJSONLine is as long as a line needs to be: with each byte of the largest key
// and value as an escape of six, and the rest.
const maxJSONLine = 6*(kvstore.MaxKey+kvstore.MaxValue) + 1<<10

// pairParser parses lines. The zero value is ready for use.
type pairParser struct {
	line       []byte
	at         int
	key, value []byte // that were in base64
}

const pairForm = `{"key":"...","value":"..."}`

// parse returns the pair that a line is. Both are good until the next call; line is
// changed.
func (p *pairParser) parse(line []byte) (key, value []byte, err error) {
	p.line, p.at = line, 0
	if !utf8.Valid(line) {
		return nil, nil, errors.New("it is not UTF-8; bytes that are no text are given as base64: key64, value64")
	}
	if !p.skip('{') {
		return nil, nil, p.expected("an object like " + pairForm)
	}
	for more := !p.skip('}'); more; {
		if key, value, err = p.member(key, value); err != nil {
			return nil, nil, err
		}
		if more = p.skip(','); !more && !p.skip('}') {
			return nil, nil, p.expected("a comma or }")
		}
	}
	if p.space(); p.at < len(p.line) {
		return nil, nil, p.expected("the end of the line")
	}
	switch {
	case key == nil:
		return nil, nil, errors.New("there is no key; a line is an object like " + pairForm)
	case value == nil:
		return nil, nil, errors.New("there is no value; a line is an object like " + pairForm)
	case len(key) == 0 || len(key) > kvstore.MaxKey:
		return nil, nil, fmt.Errorf("%w: it has %d bytes, from 1 to %d are allowed", kvstore.ErrInvalidKey, len(key), kvstore.MaxKey)
	case len(value) > kvstore.MaxValue:
		return nil, nil, fmt.Errorf("%w: a value has at most %d bytes, this one has %d", kvstore.ErrTooLarge, kvstore.MaxValue, len(value))
	}
	return key, value, nil
}

// member parses a name and its string, which becomes the key or the value unless
// there is one.
func (p *pairParser) member(key, value []byte) (_, _ []byte, err error) {
	name, err := p.text("a name")
	if err != nil {
		return nil, nil, err
	}
	if !p.skip(':') {
		return nil, nil, p.expected("a colon")
	}
	text, err := p.text("a string")
	if err != nil {
		return nil, nil, err
	}
	switch string(name) {
	case "key64":
		p.key, err = decode64(p.key[:0], text)
		text = p.key
		fallthrough
	case "key":
		if key != nil {
			return nil, nil, errors.New("there are two keys; give key or key64, once")
		}
		return text, value, err
	case "value64":
		p.value, err = decode64(p.value[:0], text)
		text = p.value
		fallthrough
	case "value":
		if value != nil {
			return nil, nil, errors.New("there are two values; give value or value64, once")
		}
		return key, text, err
	}
	return nil, nil, fmt.Errorf("unknown name %.40q; there are key, key64, value and value64", name)
}

// decode64 appends what text stands for. It is not nil without an error.
func decode64(dst, text []byte) ([]byte, error) {
	if bytes.ContainsAny(text, "\r\n") { // which the decoder leaves out
		return dst, errors.New("there is a line break in base64")
	}
	if dst == nil {
		dst = []byte{}
	}
	dst, err := base64.StdEncoding.Strict().AppendDecode(dst, text)
	if err != nil {
		err = fmt.Errorf("it is not standard base64 with padding: %w", err)
	}
	return dst, err
}

// space goes on to what is no white space.
func (p *pairParser) space() {
	for p.at < len(p.line) && bytes.IndexByte([]byte(" \t\r\n"), p.line[p.at]) >= 0 {
		p.at++
	}
}

// skip goes on behind a byte, with white space before it, and reports whether it
// is there.
func (p *pairParser) skip(c byte) bool {
	p.space()
	if p.at == len(p.line) || p.line[p.at] != c {
		return false
	}
	p.at++
	return true
}

// text parses a string, which it leaves in the line, without escapes.
func (p *pairParser) text(what string) ([]byte, error) {
	if !p.skip('"') {
		return nil, p.expected(what + ` in "quotes"`)
	}
	start, end := p.at, p.at
	for p.at < len(p.line) {
		switch c := p.line[p.at]; {
		case c == '"':
			p.at++
			return p.line[start:end:end], nil
		case c < ' ':
			return nil, p.expected(fmt.Sprintf(`\u%04x instead of the control character`, c))
		case c == '\\':
			n, err := p.escape(end)
			if err != nil {
				return nil, err
			}
			end += n
		default:
			p.line[end] = c
			end++
			p.at++
		}
	}
	return nil, p.expected(`the quote " that closes a string`)
}

// escape parses an escape, puts what it stands for at end, and returns the length
// of that, which is less than that of the escape.
func (p *pairParser) escape(end int) (int, error) {
	const names, bytesOf = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	if p.at+1 < len(p.line) {
		if i := bytes.IndexByte([]byte(names), p.line[p.at+1]); i >= 0 {
			p.line[end] = bytesOf[i]
			p.at += 2
			return 1, nil
		}
	}
	r, ok := p.unicode(p.at)
	if !ok {
		return 0, p.expected(`an escape: \" \\ \/ \b \f \n \r \t or \u and four hexadecimal digits`)
	}
	size := 6
	if utf16.IsSurrogate(r) {
		second, _ := p.unicode(p.at + size)
		if r = utf16.DecodeRune(r, second); r == utf8.RuneError {
			return 0, p.expected("both halves of a character; bytes that are no text are given as base64: key64, value64")
		}
		size = 12
	}
	p.at += size
	return utf8.EncodeRune(p.line[end:], r), nil
}

// unicode returns the number of an escape \uXXXX.
func (p *pairParser) unicode(at int) (r rune, ok bool) {
	if at+6 > len(p.line) || p.line[at] != '\\' || p.line[at+1] != 'u' {
		return 0, false
	}
	for _, c := range p.line[at+2 : at+6] {
		digit, ok := unhex(c)
		if !ok {
			return 0, false
		}
		r = r<<4 | rune(digit)
	}
	return r, true
}

func (p *pairParser) expected(what string) error {
	return fmt.Errorf("bad JSON at byte %d: expected %s", p.at+1, what)
}
