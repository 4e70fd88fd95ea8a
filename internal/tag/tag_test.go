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
	if !tag.IsPossible(before, time.Now()) {
		t.Errorf("time %v is not possible", tag.Time())
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

// What no holder can have taken between the start of the machine and now has no time.
func TestIsPossible(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	boot := now.Add(-time.Hour)
	for _, test := range []struct {
		what     string
		taken    time.Time
		earliest time.Time
		want     bool
	}{
		{"a moment ago", now, boot, true},
		{"half an hour ago", now.Add(-30 * time.Minute), boot, true},
		{"when the machine was started", boot, boot, true},
		{"in the second in which it was started", boot, boot.Add(999 * time.Millisecond), true},
		{"before it was started", boot.Add(-time.Minute), boot, false},
		{"before it was started, which is not known", boot.Add(-time.Minute), time.Time{}, true},
		{"by a clock that is a little ahead", now.Add(time.Second), boot, true},
		{"in the future", now.Add(time.Minute), boot, false},
		{"before the epoch", time.Unix(epoch-1, 0), time.Time{}, false},
		{"at the epoch, which may have been before", time.Unix(epoch, 0), time.Time{}, false},
		{"right after the epoch", time.Unix(epoch+1, 0), time.Time{}, true},
		{"after the last second", time.Unix(epoch+maxSeconds+1, 0), time.Time{}, false},
	} {
		if got := pack(test.taken, 4711, 1).IsPossible(test.earliest, now); got != test.want {
			t.Errorf("%s: %t, want %t", test.what, got, test.want)
		}
	}
	if last := pack(time.Unix(epoch+maxSeconds, 0), 1, 1); last.IsPossible(time.Time{}, last.Time().Add(time.Hour)) {
		t.Error("the last second may be any later one")
	}
	for what, foreign := range map[string]Tag{"[0, 2⁶²)": 0, "all but the last byte": Max, "one byte more than half": 1} {
		if foreign.IsPossible(time.Time{}, now) {
			t.Errorf("%s: the range of another program has a time", what)
		}
	}
}
