package s3

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	dialTimeout  = 4 * time.Second
	stallTimeout = time.Minute
	// Above this many bytes a server asks for the body before it is sent.
	askFirst = 64 << 10
)

// sharedTransport is the connections of all buckets of the process, as a Bucket
// has no Close that could end its own.
var sharedTransport = sync.OnceValue(func() http.RoundTripper { return newTransport(stallTimeout) })

func newTransport(stall time.Duration) http.RoundTripper {
	dialer := net.Dialer{Timeout: dialTimeout}
	return polite{&http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return lively{c, stall}, nil
		},
		TLSHandshakeTimeout:   2 * dialTimeout,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   16,
		ReadBufferSize:        64 << 10,
		WriteBufferSize:       64 << 10,
		DisableCompression:    true, // objects are as they are
	}}
}

// lively is a connection that fails if nothing moves for a while. A write
// counts for both directions, as the answer comes after all is written.
type lively struct {
	net.Conn
	stall time.Duration
}

func (c lively) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c lively) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// polite asks before it sends the content of an object that may be there
// already. The server would otherwise refuse in the middle of it and close the
// connection, and the refusal could get lost.
type polite struct{ http.RoundTripper }

func (t polite) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("If-None-Match") != "" && r.ContentLength > askFirst {
		r = r.Clone(r.Context())
		r.Header.Set("Expect", "100-continue") // after signing, which leaves it out
	}
	return t.RoundTripper.RoundTrip(r)
}
