package trace

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// ErrDamaged is what errors match about lines that no writer makes.
var ErrDamaged = errors.New("damaged trace")

// Reader reads a trace line by line.
type Reader struct {
	// Header is the first line.
	Header Header

	r    *bufio.Reader
	line int   // number of the last line that was read
	last int64 // milliseconds of the last mark
}

// NewReader reads the header.
func NewReader(r io.Reader) (*Reader, error) {
	t := &Reader{r: bufio.NewReaderSize(r, 64<<10)}
	text, err := t.next()
	if errors.Is(err, io.EOF) {
		t.line = 1
		return nil, t.damaged(errors.New("there is no header"))
	}
	if err != nil {
		return nil, err
	}
	if t.Header, err = parseHeader(string(text)); err != nil {
		return nil, t.damaged(err)
	}
	return t, nil
}

// Next returns the next line, or io.EOF after the last one.
func (t *Reader) Next() (Line, error) {
	text, err := t.next()
	if err != nil {
		return Line{}, err
	}
	l, err := parse(text)
	if err == nil && l.Kind == Time {
		if l.Value < t.last {
			err = fmt.Errorf("the time goes back, from %d to %d", t.last, l.Value)
		}
		t.last = l.Value
	}
	if err != nil {
		return Line{}, t.damaged(err)
	}
	return l, nil
}

// next returns the text of the next line, which is valid until the next call.
func (t *Reader) next() ([]byte, error) {
	text, err := t.r.ReadSlice('\n')
	switch {
	case errors.Is(err, io.EOF) && len(text) <= maxLine:
		return nil, io.EOF // also within a line: its writer died
	case err == nil && len(text) <= maxLine:
		t.line++
		return text[:len(text)-1], nil
	case err == nil || errors.Is(err, bufio.ErrBufferFull) || errors.Is(err, io.EOF):
		t.line++
		return nil, t.damaged(fmt.Errorf("it is longer than %d bytes", maxLine))
	}
	return nil, fmt.Errorf("after line %d: %w", t.line, err)
}

func (t *Reader) damaged(reason error) error {
	return fmt.Errorf("%w: line %d: %w", ErrDamaged, t.line, reason)
}
