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
// The newest record says what the remote holds: its own snapshot, and those of
// the older records that it keeps. So publishing one snapshot and letting go of
// others is one step, and a record that appears late, as the request that put it
// was sent twice, changes nothing. Removing snapshots without a new one is
// publishing the newest again, with others kept.
//
// Objects are put before the record, and the record lists all bytes of all
// files, so there is no chain of snapshots to follow. Bytes that are there
// already, in objects of a snapshot before, are not put again; the rest becomes
// one object, or a few large ones, or a part of the record if it is tiny. A
// snapshot whose bytes are spread over too many objects, or over objects of
// which little is in use, takes its share of the worst of them into its own.
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
// Only the writer removes. One that was fenced and does not know yet may still
// carry out what it had decided, so that must harm nobody. It decides by the
// record that it published last and by what that keeps, not by what it finds in
// the bucket, and removes no object of a later epoch. If that record was
// complete, it is the one that the next writer goes on from; so a writer may
// name objects of its own epoch, and of the snapshots that it goes on from. What
// else a snapshot needs, it puts again.
//
// A record that is no snapshot any more is put under retired/, and removed. Its
// objects stay as long as a grace lasts, for those who are reading it, and then
// go, followed by the retired record. Clocks decide on nothing but that.
package checkpoint
