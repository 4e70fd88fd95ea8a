package locktable

import "context"

// create creates the file of r, and makes the caller its leader: it may not be able to open the
// file again, as under umask 0377. Or it waits until another goroutine has tried to: otherwise
// each of a thousand goroutines that find the file missing would open it. Then the caller has
// to start over.
func (t *Table) create(ctx context.Context, r *Request, mode Mode) (*entry, error) {
	t.mu.Lock()
	if !t.creating.takeLocked(r.Path) {
		over := t.creating[r.Path]
		t.mu.Unlock()
		select {
		case <-over:
		case <-ctx.Done():
		}
		return nil, errCreated // a caller that starts over checks ctx, too
	}
	t.mu.Unlock()

	f, id, err := t.system.Create(r.Path, mode, r.Perm)

	t.mu.Lock()
	defer t.mu.Unlock()
	t.creating.endLocked(r.Path)
	switch err {
	case nil:
		e := t.entryLocked(id)
		if e.state != idle || e.file != nil {
			e.adoptLocked(f)
			return nil, errCreated
		}
		e.file = f
		e.leadLocked()
		return e, nil
	case ErrBusy:
		return nil, errLease
	}
	return nil, err
}
