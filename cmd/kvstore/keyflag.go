package main

// keyFlag is a flag whose value is a key or a part of one, written as the shell
// prints it; nil until it is set, and if it is empty.
type keyFlag []byte

func (f *keyFlag) Set(text string) error {
	key, err := parseEscaped(text)
	if err == nil && len(key) > 0 {
		*f = key
	}
	return err
}

func (f *keyFlag) String() string { return string(appendEscaped(nil, *f)) }

func (*keyFlag) Type() string { return "KEY" }

// parseEscaped is the inverse of appendEscaped. Spaces and quotes, which the
// shell of the operating system has dealt with, stand for themselves.
func parseEscaped(text string) ([]byte, error) {
	line := []byte(text)
	key := make([]byte, 0, len(line))
	for i := 0; i < len(line); {
		if line[i] != '\\' {
			key = append(key, line[i])
			i++
			continue
		}
		b, n, err := unescape(line[i:])
		if err != nil {
			return nil, errorAt(line, i, err)
		}
		key = append(key, b)
		i += n
	}
	return key, nil
}
