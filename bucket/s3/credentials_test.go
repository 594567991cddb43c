package s3

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nikosgavalas/kvstore/bucket"
)

// TestCredentials finds them in each place, and looks at the key of requests.
func TestCredentials(t *testing.T) {
	const file = "[default]\naws_access_key_id = filekey\naws_secret_access_key = s\n[other]\naws_access_key_id = otherkey\naws_secret_access_key = s\n"
	role := serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"AccessKeyID": "rolekey", "SecretAccessKey": "s", "Token": "t", "Expiration": %q}`, time.Now().Add(time.Hour).Format(time.RFC3339))
	})
	hanging := serve(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	const mc = `{"version": "10", "aliases": {"s3": {"accessKey": "placeholder", "secretKey": "s", "api": "S3v4"}, "mine": {"accessKey": "mckey", "secretKey": "s", "api": "S3v4"}}}`
	for _, c := range []struct {
		environment string
		files       map[string]string
		key, err    string
	}{
		{"AWS_ACCESS_KEY_ID=k AWS_SECRET_ACCESS_KEY=s MINIO_ROOT_USER=m MINIO_ROOT_PASSWORD=s", nil, "k", ""},
		{"MINIO_ROOT_USER=m MINIO_ROOT_PASSWORD=s", nil, "m", ""},
		{"", map[string]string{".aws/credentials": file}, "filekey", ""},
		{"AWS_PROFILE=other", map[string]string{".aws/credentials": file}, "otherkey", ""},
		{"MINIO_ALIAS=mine", map[string]string{".mc/config.json": mc, "mc/config.json": mc}, "mckey", ""},
		{"AWS_CONTAINER_CREDENTIALS_FULL_URI=" + role, nil, "rolekey", ""},
		{"", map[string]string{".mc/config.json": mc, "mc/config.json": mc}, "", "AWS_ACCESS_KEY_ID"},
		{"AWS_ACCESS_KEY_ID=k", nil, "", "only one is set"},
		{"AWS_PROFILE=none", map[string]string{".aws/credentials": file}, "", `profile "none"`},
		{"AWS_PROFILE=default", map[string]string{".aws/credentials": "[default]\n" + testSecret + "\n"}, "", `profile "default"`},
		{"AWS_CONTAINER_CREDENTIALS_FULL_URI=" + hanging, nil, "", "role that the environment names"},
	} {
		t.Run(c.environment, func(t *testing.T) {
			clearKeys(t)
			for v := range strings.FieldsSeq(c.environment) {
				name, value, _ := strings.Cut(v, "=")
				t.Setenv(name, value)
			}
			for name, content := range c.files {
				name = filepath.Join(os.Getenv("HOME"), filepath.FromSlash(name))
				must(t, os.MkdirAll(filepath.Dir(name), 0o700))
				must(t, os.WriteFile(name, []byte(content), 0o600))
			}
			used := ""
			s := openTest(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
				_, used, _ = strings.Cut(r.Header.Get("Authorization"), "Credential=")
				used, _, _ = strings.Cut(used, "/")
				w.WriteHeader(http.StatusNoContent)
			}))
			if c.key == "" {
				s.keys.timeout = 100 * time.Millisecond
			}
			err := s.Delete(t.Context(), "a")
			if used != c.key {
				t.Errorf("the key was %q, want %q", used, c.key)
			}
			if c.err == "" {
				must(t, err)
			} else {
				wantError(t, err, s, bucket.ErrAccess, "no credentials were found", c.err)
			}
		})
	}
}
