package posix

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"testing"
)

func TestMaxWaits(t *testing.T) {
	const none = math.MaxInt32
	for _, test := range []struct {
		present int32
		limits  []threadLimit
		want    int32
	}{
		{10, nil, MaxWaits},
		{10, []threadLimit{{none, 50}, {10000, 50}}, MaxWaits},
		{10, []threadLimit{{none, 50}, {100, 20}}, 12},      // an eighth
		{10, []threadLimit{{30, 20}, {none, 50}}, fewWaits}, // as without a look
		{10, []threadLimit{{1000, 970}}, 25},                // half of what is free
		{10, []threadLimit{{1000, 1000}}, 10},               // no more
		{10, []threadLimit{{1000, 2000}}, 10},               // the limit was lowered
		{10, []threadLimit{{0, 0}}, fewWaits},
	} {
		if got := maxWaits(test.present, test.limits); got != test.want {
			t.Errorf("%d waits, %v: at most %d, want %d", test.present, test.limits, got, test.want)
		}
	}
}

func TestMaxGoThreads(t *testing.T) {
	was := debug.SetMaxThreads(1234)
	defer debug.SetMaxThreads(was)
	if got := maxGoThreads(); got != 1234 {
		t.Errorf("limit is %d", got)
	}
	if got := debug.SetMaxThreads(was); got != 1234 {
		t.Errorf("limit was changed to %d", got)
	}
	if n := goThreads(); n < 2 || n > was {
		t.Errorf("%d threads", n)
	}
}

// Limits of all groups that the process is in count, whatever the version of cgroups.
func TestCgroupLimits(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for dir, limit := range map[string][2]string{
		"a/b": {"100\n", "7\n"}, "a": {"max\n", "8\n"}, "": {"200\n", "9\n"}, "c": {"1\n", "1\n"},
		"pids/d": {"300\n", "10\n"}, "pids": {"max\n", "11\n"},
	} {
		write(filepath.Join(dir, "pids.max"), limit[0])
		write(filepath.Join(dir, "pids.current"), limit[1])
	}
	for table, want := range map[string][]threadLimit{
		"0::/a/b\n":                       {{100, 7}, {200, 9}},
		"0::/\n":                          {{200, 9}},
		"0::/of/the/host/a:b\n":           {{200, 9}},
		"0::/../c\n":                      {{200, 9}}, // a namespace that does not see the group
		"9:cpu:/a\n8:pids:/d\n0::/x\n":    {{300, 10}, {200, 9}},
		"9:cpu,cpuacct:/\n8:pids:/gone\n": nil,
		"":                                nil,
	} {
		write("table", table)
		if got := cgroupLimits(filepath.Join(root, "table"), root); !slices.Equal(got, want) {
			t.Errorf("%q: limits are %v, want %v", table, got, want)
		}
	}
	if got := cgroupLimits(filepath.Join(root, "missing"), root); got != nil {
		t.Errorf("no table: limits are %v", got)
	}
}
