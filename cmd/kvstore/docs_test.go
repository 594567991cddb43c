package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// The documents whose commands are run and whose code is compared with that of
// examples.
var documents = []string{"../../README.md", "../../docs/guide.md", "../../docs/tour.md"}

// block is a fenced block of a document.
type block struct {
	line  int // of its first line
	kind  string
	lines []string
}

func blocks(t *testing.T, path string) (all []block) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var open *block
	for i, line := range strings.Split(string(content), "\n") {
		kind, fence := strings.CutPrefix(line, "```")
		switch {
		case !fence && open != nil:
			open.lines = append(open.lines, line)
		case fence && open == nil:
			open = &block{line: i + 2, kind: kind}
		case fence:
			all, open = append(all, *open), nil
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block is not closed", path, open.line)
	}
	return all
}

// TestDocumentedCommands runs the blocks of kind console, those of a document
// one after the other in one directory. A line "$ command" is run by the shell,
// with lines "> more" that belong to it; what follows is what it prints, with … for anything within a line and a line
// ... for any lines. A command that fails has a last line "(exit status N)".
func TestDocumentedCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("hundreds of processes")
	}
	if runtime.GOOS == "windows" {
		t.Skip("the commands are for a Unix shell")
	}
	for _, path := range documents {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, b := range blocks(t, path) {
				if b.kind != "console" {
					continue
				}
				for i := 0; i < len(b.lines); {
					command, ok := strings.CutPrefix(b.lines[i], "$ ")
					if !ok {
						t.Fatalf("%s:%d: %q is no command", path, b.line+i, b.lines[i])
					}
					at := b.line + i
					for i++; i < len(b.lines) && strings.HasPrefix(b.lines[i], "> "); i++ {
						command += "\n" + strings.TrimPrefix(b.lines[i], "> ")
					}
					begin := i
					for i < len(b.lines) && !strings.HasPrefix(b.lines[i], "$ ") {
						i++
					}
					got := shellRun(t, dir, command)
					if want := b.lines[begin:i]; !pattern(want).MatchString(got) {
						t.Fatalf("%s:%d: %s\nprinted\n%s\nthe document says\n%s", path, at, command, got, strings.Join(want, "\n"))
					}
				}
			}
		})
	}
}

// shellRun returns what a command prints.
func shellRun(t *testing.T, dir, command string) string {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TZ=UTC", "HOME="+dir)
	out, err := cmd.CombinedOutput()
	out = bytes.TrimRight(out, "\n")
	if err != nil {
		if len(out) > 0 {
			out = append(out, '\n')
		}
		out = fmt.Appendf(out, "(%v)", err)
	}
	return string(out)
}

// pattern matches what a document says that a command prints.
func pattern(lines []string) *regexp.Regexp {
	var parts []string
	for i, line := range lines {
		end := "\n"
		if i == len(lines)-1 {
			end = ""
		}
		line = strings.TrimRight(line, " ")
		if line == "..." {
			parts = append(parts, `(?s:.*)`)
			continue
		}
		line = strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*")
		parts = append(parts, line+" *"+end)
	}
	return regexp.MustCompile("^" + strings.Join(parts, "") + "$")
}

// TestDocumentedCode: a block of kind go is part of a file that is compiled, and
// run by a test, as it is but for its indentation.
func TestDocumentedCode(t *testing.T) {
	var sources []string
	for _, glob := range []string{"../../*_test.go", "../../examples/*/*.go", "../../metrics/*_test.go"} {
		files, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			content, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			sources = append(sources, flat(string(content)))
		}
	}
	for _, path := range documents {
		for _, b := range blocks(t, path) {
			if b.kind != "go" {
				continue
			}
			code, found := flat(strings.Join(b.lines, "\n")), false
			for _, s := range sources {
				found = found || strings.Contains(s, code)
			}
			if !found {
				t.Errorf("%s:%d: no example has this code", path, b.line)
			}
		}
	}
}

// flat takes the indentation of all lines away.
func flat(code string) string {
	var b strings.Builder
	b.WriteByte('\n')
	for line := range strings.SplitSeq(strings.TrimSpace(code), "\n") {
		b.WriteString(strings.TrimSpace(line))
		b.WriteByte('\n')
	}
	return b.String()
}

// TestDocumentedFiles: a link to a file of the repository leads to one.
func TestDocumentedFiles(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	pages, err := filepath.Glob("../../docs/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(pages, documents...) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(content), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

// TestPublishedReport: the published report is what the command makes of the
// results beside it.
func TestPublishedReport(t *testing.T) {
	t.Chdir("../..")
	out := filepath.Join(t.TempDir(), "report.html")
	cmd := newReportCommand()
	cmd.SetArgs([]string{"--in", "docs/results", "--out", out})
	cmd.SetOut(io.Discard)
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	const published = "docs/results/report.html"
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(published)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not up to date; run: go run ./cmd/kvstore report --in docs/results --out %[1]s", published)
	}
}
