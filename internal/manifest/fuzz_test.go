package manifest

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"
)

// fuzz decodes arbitrary bytes as a file, and as the payload of one whose
// checksums fit, so that the decoder of payloads is reached.
func fuzz(f *testing.F, form form) {
	f.Add(form.sample)
	f.Add(payloadOf(form.sample))
	f.Add(sealed(form.typ, nil))
	f.Add(append(header(1, form.typ, 1), 0, 0, 0, 0, 0))
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{slices.Clip(b), slices.Clip(sealed(form.typ, b))} {
			was := bytes.Clone(b)
			v, err := form.decode(b)
			if !bytes.Equal(b, was) {
				t.Fatalf("decoding changed the input %x to %x", was, b)
			}
			if err != nil {
				if !errors.Is(err, ErrNotStore) && !errors.Is(err, ErrVersion) {
					wantCorrupt(t, err, form.name, len(b))
				}
				continue
			}
			encoded := form.encode(v)
			if len(encoded) > len(b) {
				t.Fatalf("%x decodes to %+v, which is longer: %x", b, v, encoded)
			}
			again, err := form.decode(encoded)
			if err != nil || !reflect.DeepEqual(v, again) {
				t.Fatalf("%x decodes to\n%+v, and that, encoded, to\n%+v, %v", b, v, again, err)
			}
		}
	})
}

func FuzzManifest(f *testing.F) { fuzz(f, forms()[0]) }
func FuzzSnapshot(f *testing.F) { fuzz(f, forms()[1]) }
func FuzzRecord(f *testing.F)   { fuzz(f, forms()[2]) }
