package s3

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// errNoCredentials begins the text of an error about credentials that were not
// found, which is made here and has no secret.
var errNoCredentials = errors.New("no credentials were found")

// roleTimeout is for keychain.timeout. Where there is no metadata service
// nothing answers at its address.
const roleTimeout = 5 * time.Second

// keychain finds credentials where the package comment says, and keeps them
// until they expire. Unlike the chain of the client library it takes no half of
// them, goes to no metadata service for a server that is not of AWS, which
// would get a token of AWS, and fails instead of going on without.
type keychain struct {
	metadata bool          // ask the metadata service of EC2
	timeout  time.Duration // how long a role is asked for

	mu      sync.Mutex
	current credentials.Provider
	secrets []string // all that were found
}

func (k *keychain) Retrieve() (credentials.Value, error) {
	return k.RetrieveWithCredContext(&credentials.CredContext{})
}

func (k *keychain) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	providers := []credentials.Provider{&credentials.EnvAWS{}, &credentials.EnvMinio{}, &credentials.FileAWSCredentials{}}
	if os.Getenv("MINIO_ALIAS") != "" {
		providers = append(providers, &credentials.FileMinioClient{})
	}
	role := hasRole()
	if role || k.metadata {
		providers = append(providers, &credentials.IAM{})
	}
	bounded := *cc
	if bounded.Context == nil {
		bounded.Context = context.Background()
	}
	var cancel context.CancelFunc
	bounded.Context, cancel = context.WithTimeout(bounded.Context, k.timeout)
	defer cancel()

	hint := ""
	for _, p := range providers {
		value, err := p.RetrieveWithCredContext(&bounded)
		if value.AccessKeyID != "" && value.SecretAccessKey != "" {
			k.keep(p, value)
			return value, nil
		}
		switch p.(type) {
		case *credentials.EnvAWS, *credentials.EnvMinio:
			if value.AccessKeyID != "" || value.SecretAccessKey != "" {
				hint = "; of the environment variables that name a key and its secret only one is set"
			}
		case *credentials.FileAWSCredentials:
			// The error may quote a line of the file.
			if profile := os.Getenv("AWS_PROFILE"); profile != "" && err != nil {
				hint = fmt.Sprintf("; the profile %q of AWS_PROFILE cannot be used", profile)
			}
		case *credentials.IAM:
			if role && err != nil {
				hint = fmt.Sprintf("; the role that the environment names cannot be had: %v", err)
			}
		}
	}
	return credentials.Value{}, fmt.Errorf("%w: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE for one of ~/.aws/credentials%s", errNoCredentials, hint)
}

// hasRole tells whether the environment names a role to take.
func hasRole() bool {
	for _, name := range []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		if os.Getenv(name) != "" {
			return true
		}
	}
	return false
}

func (k *keychain) keep(p credentials.Provider, value credentials.Value) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.current = p
	k.secrets = append(k.secrets, value.SecretAccessKey)
	if value.SessionToken != "" {
		k.secrets = append(k.secrets, value.SessionToken)
	}
	// Those of a role change every few hours.
	k.secrets = k.secrets[max(0, len(k.secrets)-8):]
}

func (k *keychain) IsExpired() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current == nil || k.current.IsExpired()
}

// redact takes secrets out of a text that a server or a proxy sent.
func (k *keychain) redact(text string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, secret := range k.secrets {
		text = strings.ReplaceAll(text, secret, "(secret)")
	}
	return text
}
