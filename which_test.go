package kvstore

import (
	"errors"
	"testing"
)

func FuzzRef(f *testing.F) {
	f.Add("7.12.0123456789abcdef.fedcba9876543210")
	f.Add("18446744073709551615.1.0000000000000000.ffffffffffffffff")
	f.Add("07.1.0.0")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Ref(text).parse()
		switch {
		case err != nil && !errors.Is(err, ErrNoSnapshot):
			t.Errorf("%q: %v, want ErrNoSnapshot", text, err)
		case err == nil && string(makeRef(p.id, p.n, p.store, p.nonce)) != text:
			t.Errorf("%q is parsed as %+v", text, p)
		case err == nil && len(text) > 128:
			t.Errorf("%q has %d bytes", text, len(text))
		}
	})
}
