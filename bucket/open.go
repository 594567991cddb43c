package bucket

import (
	"errors"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
)

// shared has the buckets that Open returned for mem://.
var shared struct {
	mu   sync.Mutex
	mems map[string]*Mem // by name
}

// Open returns the bucket of a URL:
//
//	file:///path    the Dir of an absolute path, on Windows file:///C:/path
//	mem://name      a Mem that the process shares by its name, which may be empty
//
// In a path, %20 stands for a space, and so on. s3:// is opened by package
// bucket/s3, other storage by its own package. The errors repeat nothing of the
// URL except for the path of a Dir, as there may be a password in it.
func Open(url string) (Bucket, error) {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return nil, errors.New("bucket: no URL; that of a directory is file:// and its absolute path, such as file:///var/backup")
	}
	switch strings.ToLower(scheme) {
	case "file":
		return openDir(rest)
	case "mem":
		return openMem(rest)
	case "s3":
		return nil, errors.New("bucket: s3:// is opened by package bucket/s3: import it and call s3.Open")
	}
	return nil, errors.New("bucket: the scheme of the URL is unknown; there are file:// and mem://, and s3:// in package bucket/s3")
}

// openDir takes what comes after file://.
func openDir(rest string) (Bucket, error) {
	if rest == "" || rest == "/" {
		return nil, errors.New("bucket: file:// without a path")
	}
	if rest[0] != '/' {
		return nil, errors.New("bucket: file:// takes an absolute path and no host, so a third slash comes next, as in file:///var/backup")
	}
	if strings.ContainsAny(rest, "?#") {
		return nil, errors.New("bucket: file:// takes no parameters; in a path, ? is written %3F and # is %23")
	}
	path, err := url.PathUnescape(rest)
	if err != nil || strings.Contains(path, "\x00") {
		return nil, errors.New("bucket: the path after file:// is malformed; % is written %25")
	}
	if filepath.VolumeName(path[1:]) != "" {
		path = path[1:] // C:/path
	}
	d, err := NewDir(filepath.FromSlash(path))
	if err != nil {
		return nil, err
	}
	return d, nil
}

// openMem takes what comes after mem://.
func openMem(name string) (Bucket, error) {
	if name != "" && (CheckName(name) != nil || strings.Contains(name, "/")) {
		return nil, errors.New(`bucket: mem:// takes a name of letters, digits and "-._"`)
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	m := shared.mems[name]
	if m == nil {
		m = newMem("mem://" + name)
		if shared.mems == nil {
			shared.mems = map[string]*Mem{}
		}
		shared.mems[name] = m
	}
	return m, nil
}
