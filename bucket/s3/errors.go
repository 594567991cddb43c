package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"syscall"

	"github.com/minio/minio-go/v7"

	"github.com/nikosgavalas/kvstore/bucket"
)

const existsText = "there is an object of that name"

// failure is an error without the errors of the client library, in which there
// may be text that a server sent.
type failure struct {
	text  string
	match error // what errors.Is finds, or nil
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.match }

// check is what is wrong with a call, whose arguments are wrong if err is not nil.
func (s *store) check(op, name string, err error) error {
	if err == nil {
		err = bucket.CheckName(name)
	}
	if err == nil {
		return nil
	}
	return &failure{fmt.Sprintf("%s: %s %s: %v", s, op, name, err), fs.ErrInvalid}
}

// explain makes of an error of the client library one that says where it
// happened, what to do, and matches what the package bucket promises. It
// returns nil for nil, and an error that it made as it is.
func (s *store) explain(ctx context.Context, op, name string, err error) error {
	if err == nil {
		return nil
	}
	if f := (*failure)(nil); errors.As(err, &f) {
		return err
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	text, match := s.classify(err)
	what := ""
	if name != "" {
		what = " " + name
	}
	return &failure{s.keys.redact(fmt.Sprintf("%s: %s%s: %s", s, op, what, text)), match}
}

// classify returns the text of an error and what it matches.
func (s *store) classify(err error) (text string, match error) {
	for _, own := range []error{context.Canceled, context.DeadlineExceeded} {
		// The deadlines of connections are not those of the caller; they come
		// in a url.Error.
		if err == own {
			return err.Error(), err
		}
	}
	if r, ok := response(err); ok {
		return s.classifyResponse(r)
	}
	switch {
	case errors.Is(err, errNoCredentials):
		return err.Error(), bucket.ErrAccess
	case errors.Is(err, errContent):
		return err.Error(), errors.Unwrap(err)
	case errors.Is(err, bucket.ErrUnsupported):
		return "the server is none that snapshots can use: " + err.Error(), bucket.ErrUnsupported
	case errors.Is(err, fs.ErrExist):
		return existsText, fs.ErrExist
	case errors.Is(err, errChanged):
		return err.Error(), nil
	}
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	} else if errors.Is(err, io.ErrUnexpectedEOF) {
		return "the answer of " + s.endpoint() + " broke off", io.ErrUnexpectedEOF
	}
	advice := "is it running, and is the network up?"
	if wrongAddress(err) {
		advice = "check the endpoint of the URL"
	}
	return fmt.Sprintf("no answer from %s: %v; %s", s.endpoint(), err, advice), nil
}

func (s *store) classifyResponse(r minio.ErrorResponse) (text string, match error) {
	// Some messages are pages of HTML.
	said := fmt.Sprintf("the server answered %s: %.200s", r.Code, r.Error())
	if r.StatusCode != 0 {
		said += fmt.Sprintf(" (status %d)", r.StatusCode)
	}
	switch r.Code {
	case minio.NoSuchBucket:
		return fmt.Sprintf("there is no bucket %q at %s: create it, or check the URL", s.bucket, s.endpoint()), nil
	case minio.PreconditionFailed:
		return existsText, fs.ErrExist
	case minio.NoSuchKey:
		// Without the XML of S3 the code is a guess of the client library,
		// and an object that is not there is not to be read into the answer
		// of any web server.
		if r.XMLName.Local == "" {
			return said + "; this is not how S3 says so: check the endpoint of the URL", nil
		}
		return "there is no such object", fs.ErrNotExist
	case "XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded":
		return "the storage is full: " + said, syscall.ENOSPC
	case "RequestTimeTooSkewed":
		return said + "; set the clock of this machine or of the server", bucket.ErrAccess
	case minio.AuthorizationHeaderMalformed, minio.InvalidRegion:
		return said + "; check the region of the URL", bucket.ErrAccess
	case minio.InvalidAccessKeyID, minio.SignatureDoesNotMatch, "ExpiredToken", "InvalidToken":
		return said + "; check the credentials, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", bucket.ErrAccess
	case "PermanentRedirect", "TemporaryRedirect":
		return said + "; check the endpoint and the region of the URL", nil
	}
	switch r.StatusCode {
	case http.StatusPreconditionFailed:
		return existsText, fs.ErrExist
	case http.StatusInsufficientStorage:
		return "the storage is full: " + said, syscall.ENOSPC
	case http.StatusUnauthorized, http.StatusForbidden:
		return said + "; check the credentials and that they have the rights to list, get, put and delete objects", bucket.ErrAccess
	case http.StatusNotImplemented, http.StatusMethodNotAllowed:
		return "the server is none that snapshots can use: " + said, bucket.ErrUnsupported
	}
	return said, nil
}
