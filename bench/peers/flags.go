package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
)

// counts is a flag of a number, or of some if there may be many; empty until it
// is set, if it has no default.
type counts struct {
	min, max int
	many     bool
	list     []int
}

func (c *counts) Set(list string) error {
	fields := strings.Split(list, ",")
	if !c.many && len(fields) > 1 {
		return errors.New("must be a single number")
	}
	var numbers []int
	for _, field := range fields {
		n, err := parseCount(strings.TrimSpace(field))
		if err != nil || n < c.min || n > c.max {
			return fmt.Errorf("%q must be a whole number from %d to %d", field, c.min, c.max)
		}
		numbers = append(numbers, n)
	}
	c.list = numbers
	return nil
}

func (c *counts) String() string {
	var fields []string
	for _, n := range c.list {
		fields = append(fields, strconv.Itoa(n))
	}
	return strings.Join(fields, ",")
}

func (*counts) Type() string { return "count" }

// parseCount reads a whole number: 1000000, 1_000_000 or 1e6.
func parseCount(s string) (int, error) {
	s = strings.ReplaceAll(s, "_", "")
	if n, err := strconv.Atoi(s); err == nil {
		return n, nil
	}
	x, err := strconv.ParseFloat(s, 64)
	// From 2^53 on not every whole number is a float64.
	if err != nil || x != math.Trunc(x) || math.Abs(x) >= 1<<53 {
		return 0, fmt.Errorf("%q is not a whole number", s)
	}
	return int(x), nil
}

// size is a flag of a number of bytes.
type size int64

func (s *size) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil || n < minMemory || n > maxMemory {
		return fmt.Errorf("%q must be a size from %s to %s", text, bytesText(minMemory), bytesText(maxMemory))
	}
	*s = size(n)
	return nil
}

func (s *size) String() string {
	return strings.ReplaceAll(bytesText(int64(*s)), " ", "")
}

func (*size) Type() string { return "size" }
