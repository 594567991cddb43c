// Package advise finds the engine for a workload: it does the workload with each
// of them for some seconds on the machine at hand, and chooses by the rules below.
//
// # Workloads
//
// A workload is a Description, of some numbers, or a Replay of a recorded trace.
// Either has all keys that it works on, and all of them are loaded first. Values are
// random bytes.
//
// A trace has one in N keys. Each of them stands for N, so N keys are made of its
// hash, and each operation takes one of those by chance: taking them in turn would
// give a key whose reads and writes alternate only reads, or only writes. Of the
// scans, which a trace has all of, every N-th is made. The trace is done over and
// over, as fast as the engine can.
//
// # Measuring
//
//	for each engine                        loading
//	    open, load, first snapshot, warm up
//	3 times                                rounds
//	    for each engine, another one first each time
//	        the workload for a third of the seconds, with snapshots
//	        wait until the machine has done what is left to do in the background
//	for each engine                        ending
//	    scan, if too few were; roll back to the last snapshot, close, open,
//	    restore it elsewhere
//
// All are open at the same time, and rounds are interleaved, because the speed of a
// machine drifts; a map under a mutex, which shows what the machine can do, comes
// last by itself, as the garbage collector would look through it on the time of the
// others. Throughput is the median of the rounds. One operation in 16, and every
// scan, is timed on its own; the pause is the longest time that one of these, or all
// of those between two, took.
//
// Snapshots go to a bucket in the same temporary directory. They are taken as often
// as asked for, and at least once in each round: then they hold fewer changes than
// they would, which the report says. The bytes written are those that the process
// made the system write to disk, with all that the engine did in the background.
// The page cache is not bounded: on a machine with memory to spare, reads of files
// do not wait for the disk.
//
// # Rules
//
// An engine is ruled out by the first of these that holds:
//
//	failed      it could not be measured
//	durability  a crash takes more with it than asked for: HybridLog and MemOnly
//	            always go back to the last snapshot
//	memory      it uses over a tenth more memory than the budget
//	snapshots   completing one took longer than until the next one is due
//	rate        it does fewer operations a second than are needed: those given, or
//	            those that the trace had
//
// Of those that are left, the best by the first of three figures is taken. If others
// are within 10% of it, the second figure decides among these, and if some are
// still within 10%, the third:
//
//	for throughput  operations a second, p99, memory
//	for latency     p99, operations a second, memory
//	for memory      memory, operations a second, p99
//
// The p99 is the higher one of reads, writes and scans. Memory is what the store
// counts. The answer is close if the second figure had to be asked, or if the
// throughputs of the rounds of the best two overlap and throughput decided.
//
// What would change the answer is said only of figures that were measured: the
// choice for another purpose, and engines that are ahead but ruled out.
//
// # What was left out
//
// Extrapolation, to more keys or longer intervals: measure again. Tuning: engines
// have their default settings, but for what memory and durability ask for. Values
// that compress.
package advise
