package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/nikosgavalas/kvstore/bucket"
)

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 2 * time.Second
)

// retry calls do until it succeeds, fails for good, or s.patience has passed
// since it failed first.
func (s *store) retry(ctx context.Context, do func() error) error {
	var failed time.Time
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		err := do()
		if err == nil || ctx.Err() != nil || !transient(err) {
			return err
		}
		if failed.IsZero() {
			failed = time.Now()
		}
		wait := pause/2 + rand.N(pause/2)
		if time.Since(failed)+wait > s.patience {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// transient tells whether a request that failed may succeed if it is repeated.
func transient(err error) bool {
	for _, final := range []error{errNoCredentials, errContent, errChanged, fs.ErrExist, bucket.ErrUnsupported} {
		if errors.Is(err, final) {
			return false
		}
	}
	if r, ok := response(err); ok {
		switch r.Code {
		case "SlowDown", "SlowDownRead", "SlowDownWrite", "InternalError", "ServiceUnavailable", "RequestTimeout",
			"Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestThrottled", "IncompleteBody",
			"ConditionalRequestConflict", "OperationAborted":
			return true
		}
		switch r.StatusCode {
		case http.StatusRequestTimeout, http.StatusTooManyRequests,
			http.StatusConflict: // another request for the same object is under way
			return true
		case http.StatusNotImplemented, http.StatusInsufficientStorage:
			return false
		}
		return r.StatusCode >= 500
	}
	return !wrongAddress(err)
}

// wrongAddress tells whether a request failed in a way that only another
// endpoint, or another certificate, can mend.
func wrongAddress(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsNotFound
	}
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		noTLS     tls.RecordHeaderError
	)
	return errors.As(err, &authority) || errors.As(err, &name) || errors.As(err, &invalid) || errors.As(err, &noTLS) ||
		strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// response is what the server answered, if err is that.
func response(err error) (minio.ErrorResponse, bool) {
	var r minio.ErrorResponse
	return r, errors.As(err, &r)
}
