package postgres

// Waiting returns how many goroutines wait for a lock in the queue of this process.
func (db *DB) Waiting(name string) int {
	db.mu.Lock()
	defer db.mu.Unlock()
	if e := db.entries[name]; e != nil {
		return e.queue.Len()
	}
	return 0
}

const JoinTime = joinTime
