package tag

import (
	"os"
	"testing"
	"time"
)

func TestNew(t *testing.T) {
	before := time.Now().Truncate(time.Second)
	tag := New()
	if got := tag.Time(); got.Before(before) || got.After(time.Now()) {
		t.Errorf("time is %v, want about %v", got, before)
	}
	if tag.PID() != os.Getpid() {
		t.Errorf("PID is %d, want %d", tag.PID(), os.Getpid())
	}
	if again := New(); again < tag || again.Namespace() != tag.Namespace() {
		t.Errorf("tags are %x and then %x", tag, again)
	}
}

// A tag keeps its parts apart and is less than Max, whatever the clock and the PID are.
func TestLimits(t *testing.T) {
	year := func(y int) time.Time { return time.Date(y, 6, 1, 0, 0, 0, 0, time.UTC) }
	first, last := time.Unix(epoch, 0), time.Unix(epoch+maxSeconds, 0)
	for _, test := range []struct {
		now, want time.Time
		pid       int
		namespace uint64
	}{
		{year(2026), year(2026), 1, 0},
		{year(2026), year(2026), 1<<22 - 1, 1023},
		{year(1970), first, 4711, 1},
		{year(2100), last, 1<<22 - 2, 1023},
	} {
		tag := pack(test.now, test.pid, test.namespace)
		if !tag.Time().Equal(test.want) || tag.PID() != test.pid || tag.Namespace() != int(test.namespace) {
			t.Errorf("%+v: tag has time %v, PID %d, namespace %d", test, tag.Time(), tag.PID(), tag.Namespace())
		}
	}
	if tag := pack(year(2100), 1<<22-1, 1023); tag >= Max || tag < 0 {
		t.Errorf("largest tag is %x", tag)
	}
}
