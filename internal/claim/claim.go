// Package claim lets a process that waits for a lock ask others to let it go first.
//
// A lock that is free goes to whoever asks. Who has just released it is on a processor, and
// those whom that wakes are not: he can have it again dozens of times before they run, and
// among those who run chance decides. So who was woken and has been passed makes a claim, and
// who comes later looks for claims and stands back for a moment.
//
// A claim keeps nobody out. It is not on the lock file, because others, such as Python's
// fasteners, lock all of that, and could not for as long as there is a claim. There are claims
// only where events wake those who wait: a moment is of no use to one who looks now and then.
// Whoever likes can make one, on any file, and gets no more than that moment.
package claim
