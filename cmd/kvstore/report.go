package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore/internal/report"
	"github.com/nikosgavalas/kvstore/internal/results"
	"github.com/nikosgavalas/kvstore/internal/suite"
)

func newReportCommand() *cobra.Command {
	in := dirsFlag{dirs: []string{defaultOut}}
	out := fileFlag("report.html")
	var force, asJSON bool
	cmd := &cobra.Command{
		Use:     "report [flags]",
		GroupID: groupMeasure,
		Short:   "Make a page of benchmark results",
		Long: `report makes one HTML file of results that kvstore bench, or the comparison with
other stores in bench/peers, has written: which engine is best for which use, what
becomes of the findings of the study that the project grew from, and for each
experiment plots and all figures. The file needs nothing else, no network and no
script, and everything in it is computed from the results.

Of several directories the same measurements count as repetitions. A file that is
not such a page is not replaced.`,
		Example: `  kvstore bench --quick && kvstore report
  kvstore report --in results --in peers-results --out report.html`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			page := report.Page{Experiments: experimentsOf(suite.Experiments())}
			for _, dir := range in.dirs {
				r, err := loadResults(dir)
				if err != nil {
					return err
				}
				page.Results.Environments = append(page.Results.Environments, r.Environments...)
				page.Results.Measurements = append(page.Results.Measurements, r.Measurements...)
				page.Results.Series = append(page.Results.Series, r.Series...)
			}
			page.Repeat = repeatCommands(in.dirs, page.Results)
			if err := page.WriteFile(string(out), force); err != nil {
				return err
			}
			lines := len(page.Results.Measurements) + len(page.Results.Series)
			if asJSON {
				return printJSON(cmd.OutOrStdout(), struct {
					Out     string   `json:"out"`
					In      []string `json:"in"`
					Results int      `json:"results"`
				}{string(out), in.dirs, lines})
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s shows %d results of %s\n", out, lines, strings.Join(in.dirs, ", "))
			return err
		},
	}
	cmd.Flags().Var(&in, "in", "`DIR` with results; may be given several times")
	cmd.Flags().Var(&out, "out", "`FILE` to write")
	cmd.Flags().BoolVar(&force, "force", false, "replace the file whatever it is")
	_ = cmd.MarkFlagDirname("in") // these fail only for a flag that there is not
	_ = cmd.MarkFlagFilename("out", "html")
	addJSON(cmd, &asJSON)
	return cmd
}

// loadResults reads a directory of results.
func loadResults(dir string) (results.Results, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return results.Results{}, fmt.Errorf("there is no directory %s; kvstore bench --quick --out %s makes one, or name another with --in", dir, dir)
	case err != nil:
		return results.Results{}, err
	case !info.IsDir():
		return results.Results{}, fmt.Errorf("%s is not a directory; name the one that the file of results is in", dir)
	}
	return results.Load(dir)
}

// experimentsOf says what the page has to know of experiments.
func experimentsOf(all []suite.Experiment) []report.Experiment {
	var list []report.Experiment
	for _, e := range all {
		about := report.Experiment{Name: e.Name, Title: e.Title, Question: e.Question, Differs: e.Differs, Beyond: e.Beyond}
		for _, c := range e.Main {
			about.Main = append(about.Main, report.Column(c))
		}
		list = append(list, about)
	}
	return list
}

// repeatCommands are what makes such results, of the same size and as often, and
// such a page.
func repeatCommands(dirs []string, r results.Results) []string {
	var ours, peers *results.Environment
	for i, e := range r.Environments {
		if e.Program == "peers" {
			peers = &r.Environments[i]
		} else {
			ours = &r.Environments[i]
		}
	}
	reps := func(ofPeers bool, usual int) string {
		n := 0
		for _, m := range r.Measurements {
			if strings.HasPrefix(m.Experiment, "peers-") == ofPeers {
				n = max(n, m.Rep+1)
			}
		}
		if n == usual || n == 0 {
			return ""
		}
		return fmt.Sprint(" --reps ", n)
	}
	// go run does not tell a program its revision if it is not asked to.
	const goRun = "go run -buildvcs=true "
	var commands []string
	all := "--all" + reps(true, 3)
	if ours != nil {
		size, usual := sizeOf(*ours)
		if size == "--quick" {
			all = "--all --quick"
		}
		commands = append(commands, goRun+"./cmd/kvstore bench "+size+reps(false, usual)+" --out "+quoted(dirs[0]))
	}
	if peers != nil {
		out := dirs[len(dirs)-1]
		if !filepath.IsAbs(out) {
			out = filepath.Join("..", "..", out)
		}
		commands = append(commands, "(cd bench/peers && "+goRun+". "+all+" --out "+quoted(out)+")")
	}
	again := "go run ./cmd/kvstore report"
	for _, dir := range dirs {
		again += " --in " + quoted(dir)
	}
	return append(commands, again)
}

// sizeOf returns the flag that makes results have such an environment, and how
// many repetitions it stands for.
func sizeOf(e results.Environment) (flag string, reps int) {
	scale, _ := strconv.ParseFloat(e.Settings["scale"], 64)
	for flag, s := range map[string]suite.Session{
		"--quick": suite.Quick(), "--full": suite.Full(), "--scale " + quoted(e.Settings["scale"]): suite.Scaled(scale),
	} {
		if maps.Equal(e.Settings, s.Settings()) {
			return flag, s.Reps
		}
	}
	return "--full", suite.Full().Reps // who knows
}

// quoted returns a word for a shell.
func quoted(word string) string {
	if strings.ContainsFunc(word, func(r rune) bool { return !strings.ContainsRune("/._-+", r) && !isAlphanumeric(r) }) {
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return word
}

func isAlphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// dirsFlag is a list of directories, of which the first given replaces the
// default.
type dirsFlag struct {
	dirs  []string
	given bool
}

func (f *dirsFlag) Set(name string) error {
	if name == "" {
		return errors.New("it is empty; name a directory")
	}
	name = filepath.Clean(name)
	if !f.given {
		f.dirs, f.given = nil, true
	}
	if slices.Contains(f.dirs, name) {
		return errors.New("it is given twice, and would count twice")
	}
	f.dirs = append(f.dirs, name)
	return nil
}

func (f *dirsFlag) String() string { return strings.Join(f.dirs, ",") }

func (*dirsFlag) Type() string { return "DIR" }

// fileFlag is the name of a file.
type fileFlag string

func (f *fileFlag) Set(name string) error {
	if name == "" {
		return errors.New("it is empty; name a file")
	}
	*f = fileFlag(name)
	return nil
}

func (f *fileFlag) String() string { return string(*f) }

func (*fileFlag) Type() string { return "FILE" }
