// Package report makes a page of benchmark results: one HTML file that needs
// nothing else, neither a network nor a script.
//
// Everything in the page that looks like a result is computed from the results
// that it is made of, by the rules in this package: who is best for which use
// (verdict.go), what becomes of the study's findings (findings.go), and what an
// experiment showed (section.go). What was not measured is called that. The
// only figures that are written down here are the study's (study.go).
//
// An experiment needs no entry here to be shown. It has one in experiments.go
// if what it varies does not say well enough how to draw it.
//
// Texts in results come from files, so they are not trusted: the page is made
// with html/template throughout, drawings included, and its content security
// policy allows nothing but its own style sheet.
package report

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/nikosgavalas/kvstore/internal/results"
)

// A Page is what is to be shown.
type Page struct {
	Results     results.Results
	Experiments []Experiment
	Repeat      []string // the commands that make such results and this page
}

var (
	//go:embed page.html.tmpl
	pageText string
	//go:embed plot.svg.tmpl
	plotText string
	//go:embed style.css
	styleText string

	pageTemplate = template.Must(template.Must(template.New("page").Parse(pageText)).Parse(plotText))
)

// generator names the program that made a page, in the page.
const generator = "kvstore report"

// view is what page.html.tmpl shows.
type view struct {
	Generator string
	Policy    string
	Style     template.CSS
	Engines   []string
	Verdicts  []verdict
	Choices   []choice
	Findings  []finding
	Sections  []section
	Peers     []section
	Machines  []machine
	Warnings  []string
	Repeat    []string
	Count     int
}

// Write writes the page.
func (p Page) Write(w io.Writer) error {
	sum := sha256.Sum256([]byte(styleText))
	v := view{
		Generator: generator,
		Policy:    "default-src 'none'; img-src data:; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'",
		Style:     template.CSS(styleText),
		Engines:   engines,
		Repeat:    p.Repeat,
		Count:     len(p.Results.Measurements) + len(p.Results.Series),
	}
	v.Machines, v.Warnings = machines(p.Results.Environments)
	sets := datasets(p.Results)
	inOrderOf(p.Experiments, sets)
	v.Verdicts = judge(sets)
	v.Choices = choices(v.Verdicts)
	v.Findings = findings(sets)
	figures := 0
	for _, d := range sets {
		s := newSection(d, p.about(d.name))
		for _, list := range [][]figure{s.Figures, s.Times} {
			for i := range list {
				figures++
				list[i].ID = fmt.Sprintf("figure-%d", figures)
			}
		}
		if strings.HasPrefix(d.name, peersPrefix) {
			v.Peers = append(v.Peers, s)
		} else {
			v.Sections = append(v.Sections, s)
		}
	}
	var page bytes.Buffer
	if err := pageTemplate.Execute(&page, v); err != nil {
		return err
	}
	_, err := w.Write(page.Bytes())
	return err
}

func (p Page) about(name string) Experiment {
	for _, e := range p.Experiments {
		if e.Name == name {
			return e
		}
	}
	return Experiment{Name: name}
}
