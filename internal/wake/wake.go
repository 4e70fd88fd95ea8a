// Package wake tells who waits for a lock on a file when a try is worth it: when
// somebody has closed the file, or has removed or renamed it.
//
// Locks are released without any event, but who releases one closes its file
// (Python's fasteners does, this module does), and the kernel does it for a
// process that dies. A foreign program that unlocks and keeps its file open, and
// another host, make no event here.
package wake
