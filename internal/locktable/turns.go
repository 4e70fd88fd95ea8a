package locktable

// turns are for what one goroutine at a time does, for each key. Table.mu protects them. A
// channel is closed when the turn is over.
type turns[K comparable] map[K]chan struct{}

// takeLocked takes the turn for key. If another goroutine has it, it returns false.
func (t turns[K]) takeLocked(key K) bool {
	if t[key] != nil {
		return false
	}
	t[key] = make(chan struct{})
	return true
}

// endLocked ends the turn of the caller.
func (t turns[K]) endLocked(key K) {
	close(t[key])
	delete(t, key)
}
