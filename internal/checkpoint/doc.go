// Package checkpoint keeps snapshots in a bucket: it publishes them, lists
// them, fetches their files, and removes what no snapshot needs. It knows files
// and manifests, and no engine.
//
// # Layout
//
//	epoch/e          the claim of the e-th writer
//	epoch/e.from     the newest snapshot that this writer goes on from
//	snapshot/e-n     the record of a snapshot: see manifest.Record
//	data/e-n         bytes of files
//	retired/e-n      the record of a snapshot that was pruned
//
// e and n have 16 hexadecimal digits, so the order of names is that of the
// numbers. n comes from the counter of the writer's directory, which never goes
// back; e is a writer's own. So no name is used twice, whoever writes, and
// nothing is ever replaced.
//
// # Publishing
//
// A snapshot is there when its record is. Its objects are put before, and the
// record lists all bytes of all files, so there is no chain of snapshots to
// follow. Bytes that are there already, in objects of the snapshot before, are
// not put again; the rest becomes one object, or a few large ones, or a part of
// the record if it is tiny. A snapshot whose bytes are spread over too many
// objects, or over objects of which little is in use, takes its share of the
// worst of them into its own.
//
// # Fencing
//
// A writer claims the bucket by making the next epoch. Then it lists the
// records and writes down, in .from, the newest one that it accepts. A record
// of an older epoch that is newer than that is garbage, whenever it appears: a
// writer that was asleep may yet put one. After it has put a record, a writer
// looks for a higher epoch before it calls the snapshot complete, and is fenced
// if there is one. A claim whose writer has not written .from gets one from the
// next writer, so that every epoch but the last has its own.
//
// A reader accepts a record unless the first epoch after the record's that has
// a .from excludes it. That one is enough: later ones never accept less of the
// same epoch.
//
// # Removing
//
// Only the writer removes. A fenced one that wakes up may still carry out what
// it had decided; so what it can have decided must harm nobody. It never
// removes what the newest record of its epoch needs, and no object of a later
// epoch. Therefore a writer names only objects of its own epoch and of the
// record that it goes on from; what else a snapshot needs, it puts again.
//
// A record that goes is put under retired/ first. Its objects stay as long as a
// grace lasts, for those who are reading it, and then go, followed by the
// retired record. Clocks decide on nothing but that.
//
// A request may arrive after its sender gave up on it. That is harmless for
// claims and objects, whose names are not used again. The name of a record is
// made void, by an empty object, before the writer publishes another one.
package checkpoint
