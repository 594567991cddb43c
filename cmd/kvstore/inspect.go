package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/nikosgavalas/kvstore/internal/engine"
	"github.com/nikosgavalas/kvstore/internal/inspect"
)

// inspection is what the command looks at, and how.
type inspection struct {
	place
	file    bool // the place is one file of a store
	which   whichFlag
	quick   bool
	records bool
	asJSON  bool
}

func newInspectCommand() *cobra.Command {
	var in inspection
	cmd := &cobra.Command{
		Use:     "inspect DIR|FILE|URL",
		GroupID: groupLook,
		Short:   "Look into the files of a store, or the objects of a bucket",
		Long: `inspect prints what is in the files of a store: which there are and who needs
them, how many records they have, how much of that is live, and how large keys and
values are. A record is live if it is the newest of its key and no delete. Of a
bucket it prints the snapshots, and the objects with the bytes that snapshots need
of each.

DIR is the directory of a store, which may be open in another process, FILE one
file of it, and URL a bucket: ` + urlForms + `.
Nothing is changed. What is damaged is printed with its place, the rest all the
same, and the exit status is 1; kvstore verify checks every byte.

Reading all records takes up to 100 bytes of memory a key. --quick does without.

With --records the records of FILE are printed in the order of the file, one a
line: offset, order (of the records of a key the one with the highest counts), set
or delete, key, and the size of the value in bytes. With --json a line is an
object. Keys are printed as kvstore scan prints them.

` + jsonHelp,
		Example: `  kvstore inspect ./state
  kvstore inspect --quick --snapshot last ./state
  kvstore inspect --records ./state/12.log
  kvstore inspect file:///backup/state`,
		Args: func(cmd *cobra.Command, args []string) error { return in.parse(cmd, args) },
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			defer func() { err = interrupted(err, "the output is not complete") }()
			return printing(cmd, func(out *bufio.Writer) error {
				damaged, err := in.run(cmd, out)
				if err == nil && damaged {
					err = fmt.Errorf("%s is damaged", in)
				}
				return err
			})
		},
	}
	in.which.add(cmd, "snapshot")
	in.which.Which = nil
	flag := cmd.Flags().Lookup("snapshot")
	flag.Usage, flag.DefValue = "not the newest state of DIR, but `SNAPSHOT`: its id, its ref, or last", ""
	cmd.Flags().BoolVar(&in.quick, "quick", false, "do not read the records of DIR")
	cmd.Flags().BoolVar(&in.records, "records", false, "print the records of FILE")
	addJSON(cmd, &in.asJSON)
	return cmd
}

func (in *inspection) parse(cmd *cobra.Command, args []string) (err error) {
	if len(args) != 1 {
		return errors.New("the argument is DIR|FILE|URL")
	}
	if in.place, err = parsePlace(args[0]); err != nil {
		return err
	}
	info, err := os.Stat(in.dir)
	in.file = in.bucket == nil && err == nil && !info.IsDir()
	if in.file && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is neither a file nor a directory", in.dir)
	}
	switch dir := in.bucket == nil && !in.file; {
	case in.records && !in.file:
		return errors.New("--records is for one file of a store")
	case in.quick && !dir:
		return errors.New("--quick is for a directory")
	case in.which.Which != nil && !dir:
		return errors.New("--snapshot is for a directory")
	}
	return nil
}

// run prints what there is, and reports whether some of it is damaged.
func (in *inspection) run(cmd *cobra.Command, out *bufio.Writer) (damaged bool, err error) {
	ctx := cmd.Context()
	p := &inspectPrinter{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	switch {
	case in.bucket != nil:
		r, err := inspect.ReadBucket(ctx, in.bucket)
		if err != nil {
			return false, err
		}
		return len(r.Damage) > 0, in.print(out, r, func() error { return p.bucket(r) })
	case in.file && in.records:
		s, err := inspect.ReadFile(ctx, in.dir, func(rec engine.Stored) error {
			_, err := out.Write(appendRecord(out.AvailableBuffer(), rec, in.asJSON))
			return err
		})
		if err != nil || in.asJSON && s.File != nil {
			if err == nil && len(s.Damage) > 0 {
				err = fmt.Errorf("%s at byte %d: %s", s.Damage[0].File, s.Damage[0].Offset, s.Damage[0].Reason)
			}
			return false, err
		}
		if s.File == nil && len(s.Damage) == 0 {
			return false, fmt.Errorf("%s has no records that can be read: it is a %s", in.dir, s.Kind)
		}
		return len(s.Damage) > 0, p.damage(s.Damage)
	case in.file:
		s, err := inspect.ReadFile(ctx, in.dir, nil)
		if err != nil {
			return false, err
		}
		return len(s.Damage) > 0, in.print(out, s, func() error { return p.single(s) })
	}
	b := newBar(cmd.ErrOrStderr())
	d, err := inspect.ReadDir(ctx, in.dir, inspect.Options{Quick: in.quick, Snapshot: in.which.Which, Progress: b.show})
	b.clear()
	if err != nil {
		return false, err
	}
	return len(d.Damage) > 0, in.print(out, d, func() error { return p.directory(d) })
}

func (in *inspection) print(out io.Writer, result any, text func() error) error {
	if in.asJSON {
		return printJSON(out, result)
	}
	return text()
}

// appendRecord appends a line that is a record.
func appendRecord(dst []byte, rec engine.Stored, asJSON bool) []byte {
	kind := "set"
	if rec.Tombstone {
		kind = "delete"
	}
	if asJSON {
		dst = fmt.Appendf(dst, `{"offset":%d,"order":%d,"kind":"%s"`, rec.Offset, rec.Order, kind)
		dst = appendMember(dst, "key", rec.Key)
		return fmt.Appendf(dst, ",\"value_bytes\":%d}\n", rec.ValueBytes)
	}
	dst = fmt.Appendf(dst, "%d %d %s ", rec.Offset, rec.Order, kind)
	return fmt.Appendf(appendQuoted(dst, rec.Key), " %d\n", rec.ValueBytes)
}

// inspectPrinter prints results as text. What it prints is aligned and appears
// with Flush; the methods that return an error end with that.
type inspectPrinter struct{ *tabwriter.Writer }

func (p *inspectPrinter) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// part begins a part of the output, with the line above its table.
func (p *inspectPrinter) part(title string) {
	_ = p.Flush() // the next Flush has the error too
	p.line("\n%s", title)
	_ = p.Flush()
}

func (p *inspectPrinter) directory(d *inspect.Directory) error {
	if d.Manifest != nil {
		p.manifest(d.Manifest)
	}
	if len(d.Snapshots) > 0 {
		p.part("Snapshots")
		p.snapshots(d.Snapshots)
	}
	if len(d.Files) > 0 {
		title := "Files; * marks those of the newest state"
		if d.Snapshot > 0 {
			title = fmt.Sprintf("Files; * marks those of snapshot %d", d.Snapshot)
		}
		p.part(title)
		p.files(d.Files, d.Totals)
	}
	p.others("Other files", d.Others)
	if t := d.Totals; t != nil {
		p.histogram("Sizes of keys", &t.Keys)
		p.histogram("Sizes of values", &t.Values)
	}
	return p.damage(d.Damage)
}

func (p *inspectPrinter) manifest(m *inspect.Manifest) {
	p.line("manifest\t%s", m.File)
	p.line("engine\t%s", m.Engine)
	p.line("sequence\t%d", m.Seq)
	p.line("store\t%s", m.Store)
	line := m.Line
	for _, f := range m.Forks {
		line += fmt.Sprintf(", behind snapshot %d of %s", f.Snapshot, f.Line)
	}
	p.line("line\t%s", line)
	switch {
	case m.Base == 0:
		p.line("base\tthe empty beginning")
	default:
		p.line("base\tsnapshot %d, at sequence %d", m.Base, m.BaseSeq)
	}
	p.line("next\t%d", m.Next)
	if m.Published {
		p.line("remote\tmay have snapshots of this history")
	}
	if len(m.Flags) > 0 {
		p.line("flags\t%s", strings.Join(m.Flags, ", "))
	}
}

func (p *inspectPrinter) snapshots(list []inspect.Snapshot) {
	p.line("ID\tFILE\tTIME\tSEQUENCE\tFILES\tSIZE\tUPLOAD\tMETA\t")
	for _, s := range list {
		mark := ""
		if s.Abandoned {
			mark = "abandoned"
		}
		p.line("%d\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s", s.ID, s.File, localTime(s.Time), s.Seq, s.Files, size(s.Bytes), s.Upload, quotedMeta(s.Meta), mark)
	}
}

func (p *inspectPrinter) files(list []inspect.File, t *inspect.Totals) {
	head := "\tFILE\tKIND\tSIZE\tON DISK\tRECORDS\t"
	if t != nil {
		head += "DELETES\tLIVE\tDEAD\t"
	}
	p.line(head + "SEQUENCE\tKEYS\tNEEDED BY")
	for i := range list {
		f := &list[i]
		mark := ""
		if f.Inspected {
			mark = "*"
		}
		length, disk, records := size(f.Size), size(f.Disk), strconv.FormatUint(f.Records, 10)
		if f.Grows {
			length, records = "grows", "?"
		}
		if f.Disk < 0 {
			disk = "missing"
		}
		if f.Records == 0 && !f.Grows {
			records = "" // has none, or that is not known
		}
		counts := ""
		if f.Read != nil {
			records = strconv.FormatUint(f.Read.Records, 10)
			counts = fmt.Sprintf("%d\t%s\t%s\t", f.Read.Tombstones, size(f.Read.Live), size(f.Read.Dead))
		} else if t != nil {
			counts = "\t\t\t"
		}
		p.line("%s\t%s\t%s\t%s\t%s\t%s\t%s%s\t%s\t%s", mark, f.Name, f.Kind, length, disk, records, counts, sequence(f), keyRange(f.Keys), neededBy(f))
	}
	if t != nil {
		p.line("*\ttotal\t\t\t\t%d\t%d\t%s\t%s\t\t\t", t.Records, t.Tombstones, size(t.Live), size(t.Dead))
	}
}

func (p *inspectPrinter) others(title string, list []inspect.Other) {
	if len(list) == 0 {
		return
	}
	p.part(title)
	p.line("NAME\tSIZE\tWHAT")
	for _, o := range list {
		length := ""
		if o.Size >= 0 {
			length = size(o.Size)
		}
		p.line("%s\t%s\t%s", appendQuoted(nil, []byte(o.Name)), length, o.What)
	}
}

// longestBar is the width of the largest bar of a histogram, in characters.
const longestBar = 40

func (p *inspectPrinter) histogram(title string, h *inspect.Histogram) {
	if h.Count == 0 {
		return
	}
	p.part(fmt.Sprintf("%s: %s of %s, from %s to %s bytes", title, humanize.Comma(int64(h.Count)), size(int64(h.Total)),
		humanize.Comma(int64(h.Min)), humanize.Comma(int64(h.Max))))
	var most uint64
	for _, b := range h.Buckets {
		most = max(most, b.Count)
	}
	for _, b := range h.Buckets {
		span := humanize.Comma(int64(b.From))
		if b.To > b.From {
			span += " - " + humanize.Comma(int64(b.To))
		}
		// A bar of a few is short, but not nothing.
		width := (b.Count*longestBar + most - 1) / most
		p.line("%s\t%s\t%s", span, humanize.Comma(int64(b.Count)), strings.Repeat("#", int(width)))
	}
}

func (p *inspectPrinter) damage(list []inspect.Damage) error {
	if len(list) > 0 {
		p.part("Damage")
		for _, d := range list {
			p.line("%s at byte %d: %s", d.File, d.Offset, d.Reason)
		}
	}
	return p.Flush()
}

func (p *inspectPrinter) single(s *inspect.Single) error {
	switch {
	case s.Manifest != nil:
		p.manifest(s.Manifest)
		if len(s.Snapshots) > 0 {
			p.part("Snapshots")
			p.snapshots(s.Snapshots)
		}
	case s.Snapshot != nil:
		p.snapshots([]inspect.Snapshot{*s.Snapshot})
		p.line("")
		p.line("engine\t%s", s.Snapshot.Engine)
		p.line("line\t%s", s.Snapshot.Line)
		p.line("ref\t%s", s.Snapshot.Ref)
		p.line("parent\t%s", cmp.Or(s.Snapshot.Parent, "none"))
	case s.Other != nil:
		p.line("%s\t%s\t%s", s.Name, size(s.Other.Size), s.Other.What)
	case s.File != nil:
		p.dataFile(s)
	}
	if len(s.Files) > 0 {
		p.part("Files")
		p.files(s.Files, nil)
	}
	return p.damage(s.Damage)
}

func (p *inspectPrinter) dataFile(s *inspect.Single) {
	f := s.File
	p.line("file\t%s", f.Name)
	p.line("kind\t%s", f.Kind)
	p.line("read\tas a part of %s", s.State)
	if f.Grows {
		p.line("size\t%s on disk; the log is appended to", size(f.Disk))
	} else {
		p.line("size\t%s, %s on disk", size(f.Size), size(f.Disk))
	}
	if seq := sequence(f); seq != "" {
		p.line("sequence\t%s", seq)
	}
	if keys := keyRange(f.Keys); keys != "" {
		p.line("keys\t%s", keys)
	}
	p.line("records\t%d of %s, %d of them deletes", f.Read.Records, size(f.Read.Bytes), f.Read.Tombstones)
	p.histogram("Sizes of keys", s.Keys)
	p.histogram("Sizes of values", s.Values)
}

func (p *inspectPrinter) bucket(r *inspect.Remote) error {
	p.line("bucket\t%s", r.Bucket)
	p.line("size\t%s", size(r.Bytes))
	if len(r.Objects) > 0 {
		p.line("live\t%s, that snapshots need of objects", size(r.Live))
		p.line("dead\t%s, that they do not need", size(r.Dead))
	}
	if len(r.Snapshots) > 0 {
		p.part("Snapshots")
		p.line("ID\tRECORD\tTIME\tENGINE\tSEQUENCE\tFILES\tPARTS\tOBJECTS\tSIZE\tINLINE\tMETA")
		for _, s := range r.Snapshots {
			p.line("%d\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s", s.ID, s.Record, localTime(s.Time), s.Engine, s.Seq, s.Files,
				s.Parts, s.Objects, size(s.Bytes), size(s.Inline), quotedMeta(s.Meta))
		}
	}
	if len(r.Objects) > 0 {
		p.part("Objects")
		p.line("OBJECT\tSIZE\tLIVE\tDEAD\tNEEDED BY")
		for _, o := range r.Objects {
			p.line("%s\t%s\t%s\t%s\t%s", o.Name, size(o.Size), size(o.Live), size(o.Dead), ids(o.Snapshots))
		}
	}
	p.others("Other objects", r.Others)
	return p.damage(r.Damage)
}

func size(bytes int64) string { return humanize.IBytes(uint64(bytes)) }

func localTime(t time.Time) string { return t.Local().Format(time.DateTime) }

func quotedMeta(meta []byte) string {
	if len(meta) == 0 {
		return ""
	}
	return string(appendQuoted(nil, meta))
}

// longestKey is how many characters of a key a table has room for.
const longestKey = 24

func keyRange(r inspect.Range) string {
	if len(r.First) == 0 && len(r.Last) == 0 {
		return ""
	}
	short := func(key []byte) string {
		text := []rune(string(appendQuoted(nil, key)))
		if len(text) > longestKey {
			return string(text[:longestKey-1]) + "…"
		}
		return string(text)
	}
	return short(r.First) + " .. " + short(r.Last)
}

func sequence(f *inspect.File) string {
	if f.Last == 0 {
		return ""
	}
	return fmt.Sprintf("%d - %d", f.First, f.Last)
}

func neededBy(f *inspect.File) string {
	var who []string
	if f.Newest {
		who = append(who, "the newest state")
	}
	if len(f.Snapshots) > 0 {
		who = append(who, "snapshots "+ids(f.Snapshots))
	}
	return strings.Join(who, ", ")
}

func ids(list []uint64) string {
	var words []string
	for _, id := range list {
		words = append(words, strconv.FormatUint(id, 10))
	}
	return strings.Join(words, " ")
}
