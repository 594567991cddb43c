package kvstore_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestDependencies: who embeds the store gets the standard library, this
// module, and what is listed here. An addition needs a decision in
// docs/decisions.
func TestDependencies(t *testing.T) {
	allowed := []string{
		"github.com/nikosgavalas/kvstore",
		"github.com/klauspost/compress",
		"golang.org/x/sys/",
	}
	for _, goos := range []string{"linux", "windows", "darwin"} {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")
		cmd.Env = append(cmd.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for path := range strings.FieldsSeq(string(out)) {
			found := false
			for _, prefix := range allowed {
				found = found || strings.HasPrefix(path, prefix)
			}
			if !found || strings.Contains(path, "/internal/bench") || strings.Contains(path, "enginetest") {
				t.Errorf("on %s the store depends on %s", goos, path)
			}
		}
	}
}
