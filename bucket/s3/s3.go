// Package s3 is a bucket.Bucket on S3 and what speaks its protocol.
//
// # URLs
//
//	s3://bucket                                            on AWS
//	s3://bucket/prefix?region=eu-central-1                 on AWS, in that region
//	s3://bucket/prefix?endpoint=http://127.0.0.1:9000      on a server of one's own
//	s3://bucket/prefix?endpoint=storage.example.com        over TLS
//
// The prefix, which may have slashes, is put before the name of every object,
// so that several stores may share a bucket. Parameters:
//
//	endpoint  the server, as http://host:port, https://host:port, or host:port
//	          for TLS; without it AWS
//	region    otherwise AWS_REGION, AWS_DEFAULT_REGION, or what the server says
//	style     "path" or "host": whether the bucket is in the path of requests
//	          or in the name of the host; otherwise host on AWS and path
//	          elsewhere
//
// # Credentials
//
// They are looked for when the first request is made, and are never part of a
// URL, nor of an error. The first of these that has them is taken:
//
//	AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, with AWS_SESSION_TOKEN if any
//	MINIO_ROOT_USER and MINIO_ROOT_PASSWORD, or MINIO_ACCESS_KEY and MINIO_SECRET_KEY
//	~/.aws/config and ~/.aws/credentials, of the profile AWS_PROFILE
//	~/.mc/config.json, of the alias MINIO_ALIAS, if that is set
//	a role, by AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, or AWS_CONTAINER_*
//	the role of an EC2 instance, if the endpoint is one of AWS
//
// They need the rights s3:ListBucket, s3:GetObject, s3:PutObject,
// s3:DeleteObject and s3:AbortMultipartUpload.
//
// # What the server must do
//
// It must refuse to replace an object if a request says "If-None-Match: *",
// also the one that completes a multipart upload, and show at once what was
// put, to Get and to List, which lists in byte order. AWS and MinIO do. A
// server that ignores the header cannot be told from one that heeds it by a
// single request; who relies on it has to try.
//
// A process that is killed while it puts a large object leaves parts, which
// cost space and are no object. A lifecycle rule of the bucket that aborts
// incomplete multipart uploads after some days removes them.
//
// # When the network fails
//
// A request that failed for a reason that may pass is made again, with growing
// pauses, until ten seconds after its first failure; reading goes on where it
// was. An upload that was made twice may find its own object: its error matches
// fs.ErrExist. A connection on which nothing moves for a minute has failed.
package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/nikosgavalas/kvstore/bucket"
)

// Open returns the bucket of a URL: the one that the package comment describes
// if it begins with "s3:", otherwise that of bucket.Open. It makes no request,
// so that a wrong address or missing credentials show at the first use.
func Open(rawURL string) (bucket.Bucket, error) {
	if scheme, _, _ := strings.Cut(rawURL, ":"); !strings.EqualFold(scheme, "s3") {
		return bucket.Open(rawURL)
	}
	a, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	return open(a, sharedTransport())
}

// store is a Bucket. Its fields do not change.
type store struct {
	address
	client   *minio.Core
	keys     *keychain
	patience time.Duration // how long after its first failure a request is repeated
	partSize int64         // an object of more bytes is put in parts, of at least so many
}

func open(a address, transport http.RoundTripper) (*store, error) {
	s := &store{
		address:  a,
		keys:     &keychain{metadata: a.aws(), timeout: roleTimeout},
		patience: 10 * time.Second,
		partSize: 16 << 20,
	}
	core, err := minio.NewCore(a.host, &minio.Options{
		Creds:        credentials.New(s.keys),
		Secure:       a.secure,
		Transport:    transport,
		Region:       a.regionOf(),
		BucketLookup: a.lookup(),
		MaxRetries:   1, // retry is ours, so that its time is bounded
	})
	if err != nil {
		return nil, fmt.Errorf("the endpoint of an s3 URL is wrong: %w", err)
	}
	s.client = core
	return s, nil
}

func (s *store) String() string { return s.address.String() }

// key is what the server calls an object.
func (s *store) key(name string) string {
	if s.prefix == "" {
		return name
	}
	return s.prefix + "/" + name
}

// listable is the part of a prefix that all servers take: MinIO refuses to list
// what begins with a part ".".
func listable(prefix string) string {
	for prefix != "" && bucket.CheckName(strings.TrimSuffix(prefix, "/")) != nil {
		prefix = prefix[:strings.LastIndex(strings.TrimSuffix(prefix, "/"), "/")+1]
	}
	return prefix
}

// List leaves out objects whose names no Put accepts, such as the empty ones
// that stand for folders in some consoles.
func (s *store) List(ctx context.Context, prefix string) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		last, more := "", true // last is the newest key
		for more {
			// A request that fails in the middle of the list goes on behind
			// the last key; retry then counts from there.
			before := last
			err := s.retry(ctx, func() error {
				for o := range s.client.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{
					Prefix:     s.key(listable(prefix)),
					Recursive:  true,
					StartAfter: last,
					FetchOwner: new(bool),
				}) {
					if o.Err != nil {
						if last != before {
							return nil
						}
						return o.Err
					}
					if o.Key <= last {
						return fmt.Errorf("it does not list objects in byte order: %w", bucket.ErrUnsupported)
					}
					last = o.Key
					name := strings.TrimPrefix(o.Key, s.key(""))
					if bucket.CheckName(name) != nil || !strings.HasPrefix(name, prefix) {
						continue
					}
					if !yield(bucket.Object{Name: name, Size: o.Size, Modified: o.LastModified}, nil) {
						more = false
						return nil
					}
				}
				more = false
				return ctx.Err() // it ends the sequence without an error
			})
			if err != nil {
				yield(bucket.Object{}, s.explain(ctx, "list", prefix, err))
				return
			}
		}
	}
}

func (s *store) Delete(ctx context.Context, name string) error {
	if err := s.check("delete", name, nil); err != nil {
		return err
	}
	err := s.retry(ctx, func() error {
		return s.client.RemoveObject(ctx, s.bucket, s.key(name), minio.RemoveObjectOptions{})
	})
	if err = s.explain(ctx, "delete", name, err); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
