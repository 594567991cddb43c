// Package bucket is object storage as snapshots need it: named, immutable
// objects that are there whole or not at all.
//
//	Dir          a directory, of a local disk or a mounted one
//	Mem          memory, for tests
//	bucket/s3    S3 and what speaks its protocol; a package of its own, so
//	             that who does without gets no S3 client
//
// Other storage is a type with the methods of Bucket; it is right when it
// passes buckettest.Run.
//
// # What a caller may rely on
//
// An object never changes. Put makes one only if there is none of that name, so
// of several writers that put the same name one wins, and the others learn of
// it: that is what claims are built on. When Put returned nil the object is
// durable and every later Get and List sees it; when it returned an error other
// than fs.ErrExist the object may be there, whole, now or later, as a request
// may arrive after its sender gave up. A part of an object is never visible.
//
// Names are slash-separated, of letters, digits and "-._", without empty
// parts, "." and "..", and of at most 512 bytes. CheckName says so. Who puts
// "a" does not put "a/b": not every storage can have both.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
	"time"
)

// ErrUnsupported is what an error matches if the storage lacks what snapshots
// rely on, such as a Put that refuses to replace an object. Trying again does
// not help.
var ErrUnsupported = errors.ErrUnsupported

// ErrAccess is what an error matches if the storage knows the caller too little
// to let it in: credentials are missing, wrong or lack a right. Its text never
// has a secret in it.
var ErrAccess = fs.ErrPermission

// Bucket stores objects by name. It is safe for concurrent use. Every method
// ends with the error of ctx, soon after ctx has ended.
type Bucket interface {
	// Put makes an object of the size bytes that content has, or fails with an
	// error that matches fs.ErrExist if there is one of that name. It may read
	// content in any order, in parallel and more than once, and not after it
	// returned.
	Put(ctx context.Context, name string, content io.ReaderAt, size int64) error
	// Get returns the content of an object. The error of Get, or of the first
	// Read, matches fs.ErrNotExist if there is none. The caller closes it.
	Get(ctx context.Context, name string) (io.ReadCloser, error)
	// GetRange returns the n bytes of an object from offset off, which must be
	// positive and not negative. If the object ends before, reading fails with
	// io.ErrUnexpectedEOF; errors are otherwise those of Get.
	GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error)
	// List returns the objects whose names begin with prefix, in byte order of
	// their names. An error ends it. Objects that are put or deleted meanwhile
	// may be there or not.
	List(ctx context.Context, prefix string) iter.Seq2[Object, error]
	// Delete removes an object. It is no error if there is none.
	Delete(ctx context.Context, name string) error
	// String tells people where the bucket is, without secrets.
	String() string
}

// Object is what List tells of an object.
type Object struct {
	Name     string
	Size     int64     // in bytes
	Modified time.Time // when it was put, by the clock of the storage
}

// Linker is a Bucket that can make an object of a file without reading it.
type Linker interface {
	Bucket
	// Link makes the file, whose path is one of the operating system and whose
	// content is durable, an object, as Put does. The two share their bytes, so
	// the file must not change any more, but it may be removed. The error
	// matches ErrUnsupported if the bucket is on another filesystem, or the
	// filesystem has no links; then there is no object.
	Link(ctx context.Context, name, path string) error
}

// maxName bounds the length of names, in bytes.
const maxName = 512

// CheckName says what is wrong with the name of an object, if anything.
func CheckName(name string) error {
	bad := len(name) > maxName
	for part := range strings.SplitSeq(name, "/") {
		bad = bad || part == "" || part == "." || part == ".."
	}
	for _, c := range []byte(name) {
		bad = bad || !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._/", c) >= 0)
	}
	if bad {
		return fmt.Errorf("%q is no name of an object", name)
	}
	return nil
}
