package main

// removeAfterRelease is true, since a file that is open here cannot be removed: neither the holder can do that, nor
// anybody while somebody else holds the lock.
const removeAfterRelease = true
