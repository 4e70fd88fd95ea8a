package locktable

import "context"

// create creates the file of r, or waits until another goroutine has tried to: otherwise each of a
// thousand goroutines that find the file missing would open it. The caller has to start over.
func (t *Table) create(ctx context.Context, r *Request, mode Mode) error {
	t.mu.Lock()
	if !t.creating.takeLocked(r.Path) {
		over := t.creating[r.Path]
		t.mu.Unlock()
		select {
		case <-over:
		case <-ctx.Done():
		}
		return errCreated // a caller that starts over checks ctx, too
	}
	t.mu.Unlock()

	f, id, err := t.system.Create(r.Path, mode, r.Perm)
	if err == nil {
		t.adopt(f, id)
	}

	t.mu.Lock()
	t.creating.endLocked(r.Path)
	t.mu.Unlock()
	switch err {
	case nil:
		return errCreated
	case ErrBusy:
		return errLease
	}
	return err
}
