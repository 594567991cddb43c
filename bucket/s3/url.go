package s3

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/nikosgavalas/kvstore/bucket"
)

const amazon = "s3.amazonaws.com"

// address is what a URL says.
type address struct {
	bucket string
	prefix string // without slashes at its ends
	host   string // of the endpoint, with its port if any
	secure bool   // TLS
	region string // empty: ask the server
	style  string // path, host, or empty
}

// parse reads a URL. Its errors repeat no part of the URL in which a secret
// may be.
func parse(rawURL string) (address, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Opaque != "" || u.Fragment != "" {
		// The error of url.Parse has the URL in it.
		return address{}, errors.New("the s3 URL is malformed: write s3://bucket/prefix, and parameters such as ?endpoint=http://127.0.0.1:9000 after it")
	}
	if u.User != nil {
		return address{}, errors.New("the s3 URL has credentials in it, where others may read them: put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or into ~/.aws/credentials")
	}
	a := address{bucket: u.Host, prefix: strings.Trim(u.Path, "/"), host: amazon, secure: true}
	if a.bucket == "" {
		return a, errors.New("the s3 URL names no bucket: write s3://bucket/prefix")
	}
	if s3utils.CheckValidBucketName(a.bucket) != nil || strings.Contains(a.bucket, ":") {
		return a, errors.New("the s3 URL names a bucket that cannot be: a name has 3 to 63 letters, digits and \".-\", and the server, if not AWS, goes into ?endpoint=http://host:port")
	}
	if a.prefix != "" {
		if err := bucket.CheckName(a.prefix); err != nil {
			return a, fmt.Errorf("the prefix of the s3 URL: %w", err)
		}
	}
	parameters, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return a, errors.New("the parameters of the s3 URL are malformed: write ?endpoint=http://127.0.0.1:9000&region=us-east-1")
	}
	for name, values := range parameters {
		if len(values) > 1 {
			return a, fmt.Errorf("the s3 URL has the parameter %s more than once", name)
		}
		switch value := values[0]; name {
		case "endpoint":
			err = a.setEndpoint(value)
		case "region":
			a.region = value
		case "style":
			if a.style = value; value != "path" && value != "host" {
				err = errors.New("the style of the s3 URL is neither path nor host")
			}
		default:
			err = fmt.Errorf("the s3 URL has the unknown parameter %q: there are endpoint, region and style; credentials come from the environment or ~/.aws/credentials", name)
		}
		if err != nil {
			return a, err
		}
	}
	return a, nil
}

func (a *address) setEndpoint(value string) error {
	if !strings.Contains(value, "://") {
		value = "https://" + value
	}
	e, err := url.Parse(value)
	switch {
	case err == nil && e.User != nil:
		return errors.New("the endpoint of the s3 URL has credentials in it: put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or into ~/.aws/credentials")
	case err != nil, e.Hostname() == "", e.Scheme != "http" && e.Scheme != "https",
		strings.Trim(e.Path, "/") != "", e.RawQuery != "", e.Fragment != "":
		return errors.New("the endpoint of the s3 URL is malformed: write http://host:port, or https://host:port for TLS")
	}
	a.host, a.secure = e.Host, e.Scheme == "https"
	return nil
}

// endpoint is the URL of the server.
func (a address) endpoint() string {
	if a.secure {
		return "https://" + a.host
	}
	return "http://" + a.host
}

// aws tells whether the server is one of AWS.
func (a address) aws() bool {
	host := (&url.URL{Host: a.host}).Hostname()
	return a.secure && (strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn"))
}

func (a address) lookup() minio.BucketLookupType {
	switch a.style {
	case "path":
		return minio.BucketLookupPath
	case "host":
		return minio.BucketLookupDNS
	}
	return minio.BucketLookupAuto
}

// String returns a URL that says the same.
func (a address) String() string {
	text := "s3://" + a.bucket
	if a.prefix != "" {
		text += "/" + a.prefix
	}
	separator := "?"
	add := func(name, value string) {
		if value != "" {
			text += separator + name + "=" + value
			separator = "&"
		}
	}
	if a.host != amazon || !a.secure {
		add("endpoint", a.endpoint())
	}
	add("region", url.QueryEscape(a.region))
	add("style", a.style)
	return text
}

// regionOf is the region of requests; empty if the server has to be asked.
func (a address) regionOf() string {
	for _, region := range []string{a.region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION")} {
		if region != "" {
			return region
		}
	}
	return ""
}
