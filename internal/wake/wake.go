// Package wake tells who waits for a lock on a file when a try is worth it: when
// somebody has closed the file, or has removed or renamed it.
//
// Locks are released without any event, but who releases one closes its file
// (Python's fasteners does, this module does), and the kernel does it for a
// process that dies. A foreign program that unlocks and keeps its file open, and
// another host, make no event here.
package wake

// Watch watches the file that fd has open, whatever its name. The channel, of capacity one,
// receives when there is something to see, until stop is called; it is nil where there are no
// events. Complete says that everybody who closes the file makes one.
func Watch(fd int) (events <-chan struct{}, complete bool, stop func()) {
	return watch(fd)
}
