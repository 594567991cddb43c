package main

import (
	"bytes"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// The shell's lines are words separated by ASCII white space:
//
//	word    = plain | '"' quoted '"'
//	plain   = any bytes but white space and '"', with escapes
//	quoted  = any bytes but '"', with escapes
//	escape  = '\\' ( '\\' | '"' | 'n' | 't' | 'r' | 'x' hex hex )
//
// An empty line, and one whose first word starts with '#', has no words. What
// a shell of an operating system would do beyond that ($, ', glued quotes)
// is left out, so that every byte has one obvious spelling.

// parseLine returns the words of a line. They do not alias it.
func parseLine(line []byte) ([][]byte, error) {
	var words [][]byte
	buf := make([]byte, 0, len(line)) // all words; an escape is never shorter than its byte
	for i := 0; ; {
		for i < len(line) && isSpace(line[i]) {
			i++
		}
		if i == len(line) || len(words) == 0 && line[i] == '#' {
			return words, nil
		}
		start := len(buf)
		var err error
		if buf, i, err = appendWord(buf, line, i); err != nil {
			return nil, err
		}
		words = append(words, buf[start:len(buf):len(buf)])
	}
}

// appendWord appends the word that starts at line[i] to buf and returns the
// offset behind it.
func appendWord(buf, line []byte, i int) ([]byte, int, error) {
	start := i
	quoted := line[i] == '"'
	if quoted {
		i++
	}
	for i < len(line) {
		switch c := line[i]; {
		case c == '\\':
			b, n, err := unescape(line[i:])
			if err != nil {
				return nil, 0, errorAt(line, i, err)
			}
			buf = append(buf, b)
			i += n
		case c == '"' && quoted:
			i++
			if i < len(line) && !isSpace(line[i]) {
				return nil, 0, errorAt(line, i, errors.New("missing space after the closing quote"))
			}
			return buf, i, nil
		case c == '"':
			return nil, 0, errorAt(line, i, errors.New(`quote inside a word: write \" or quote the whole word`))
		case isSpace(c) && !quoted:
			return buf, i, nil
		default:
			buf = append(buf, c)
			i++
		}
	}
	if quoted {
		return nil, 0, errorAt(line, start, errors.New("quote is not closed"))
	}
	return buf, i, nil
}

// unescape returns the byte that the escape at the start of s stands for, and
// the length of the escape.
func unescape(s []byte) (b byte, n int, err error) {
	if len(s) < 2 {
		return 0, 0, errors.New(`backslash at the end of the line: write \\`)
	}
	switch s[1] {
	case '\\', '"':
		return s[1], 2, nil
	case 'n':
		return '\n', 2, nil
	case 't':
		return '\t', 2, nil
	case 'r':
		return '\r', 2, nil
	case 'x':
		if len(s) >= 4 {
			hi, ok1 := unhex(s[2])
			lo, ok2 := unhex(s[3])
			if ok1 && ok2 {
				return hi<<4 | lo, 4, nil
			}
		}
		return 0, 0, errors.New(`\x needs two hexadecimal digits`)
	}
	return 0, 0, errors.New(`unknown escape: there are \\ \" \n \t \r and \xHH`)
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// errorAt adds the place to err, counted in characters from 1 as editors do.
func errorAt(line []byte, i int, err error) error {
	return fmt.Errorf("column %d: %w", utf8.RuneCount(line[:i])+1, err)
}

func isSpace(c byte) bool {
	return c == ' ' || '\t' <= c && c <= '\r'
}

// formatLine is the inverse of parseLine.
func formatLine(words ...[]byte) []byte {
	var line []byte
	for i, w := range words {
		if i > 0 {
			line = append(line, ' ')
		}
		line = appendQuoted(line, w)
	}
	return line
}

// appendQuoted appends a word as it can be typed, in quotes where it needs
// them.
func appendQuoted(dst, word []byte) []byte {
	if len(word) > 0 && word[0] != '#' && !bytes.ContainsAny(word, ` "`) {
		return appendEscaped(dst, word)
	}
	dst = append(dst, '"')
	for i, part := range bytes.Split(word, []byte{'"'}) {
		if i > 0 {
			dst = append(dst, `\"`...)
		}
		dst = appendEscaped(dst, part)
	}
	return append(dst, '"')
}

// appendEscaped appends text with escapes for all that a terminal would not
// show as it is, and for the backslash, so that the result can mean only one
// sequence of bytes.
func appendEscaped(dst, text []byte) []byte {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r == '\\':
			dst = append(dst, `\\`...)
		case r == '\n':
			dst = append(dst, `\n`...)
		case r == '\t':
			dst = append(dst, `\t`...)
		case r == '\r':
			dst = append(dst, `\r`...)
		case unicode.IsPrint(r) && (r != utf8.RuneError || n > 1):
			dst = append(dst, text[:n]...)
		default:
			for _, b := range text[:n] {
				dst = fmt.Appendf(dst, `\x%02x`, b)
			}
		}
		text = text[n:]
	}
	return dst
}
