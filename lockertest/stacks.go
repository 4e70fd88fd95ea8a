package lockertest

import (
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// stacks returns the stacks of all goroutines, those first that can tell why a test of locks does
// not go on: see [sortStacks].
func stacks() string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) || n >= 1<<26 {
			return sortStacks(string(buf[:n]))
		}
		buf = make([]byte, 2*len(buf))
	}
}

var (
	stackID      = regexp.MustCompile(`^goroutine (\d+) `)
	stackCreator = regexp.MustCompile(`(?m)^created by .* in goroutine (\d+)$`)
	stackOfTest  = regexp.MustCompile(`(?m)^testing\.tRunner\(`)
	// The path of a package that is not of the standard library begins with the name of a host.
	stackFromOutside = regexp.MustCompile(`(?m)^(created by )?[^\s/()]+\.[^\s/()]+/\S`)
)

// sortStacks sorts what [runtime.Stack] returns for all goroutines: first the goroutine that has
// called it; then those that it and its children have started, which are the goroutines of the
// suite and of the lock in its hands; then those of no test, in code outside the standard library,
// which can be those of the lock as well; then other tests and what they have started, and the
// rest. Who started a goroutine whose parent has ended is not known.
func sortStacks(dump string) string {
	all := strings.Split(strings.TrimSpace(dump), "\n\n")
	stackOf, parent := map[string]string{}, map[string]string{}
	for _, s := range all {
		stackOf[stackNumber(s)] = s
		if m := stackCreator.FindStringSubmatch(s); m != nil {
			parent[stackNumber(s)] = m[1]
		}
	}
	self := stackNumber(all[0])
	ancestors := map[string]bool{} // of self
	for g := parent[self]; g != ""; g = parent[g] {
		ancestors[g] = true
	}
	rank := func(s string) int {
		number := stackNumber(s)
		if number == self {
			return 0
		}
		isTest := stackOfTest.MatchString(s)
		for g := parent[number]; g != "" && !isTest && !ancestors[g]; g = parent[g] {
			if g == self {
				return 1
			}
			isTest = stackOfTest.MatchString(stackOf[g])
		}
		if !isTest && stackFromOutside.MatchString(s) {
			return 2
		}
		return 3
	}
	slices.SortStableFunc(all, func(a, b string) int { return rank(a) - rank(b) })
	return strings.Join(all, "\n\n") + "\n"
}

// stackNumber returns the number of the goroutine whose stack it is.
func stackNumber(stack string) string {
	if m := stackID.FindStringSubmatch(stack); m != nil {
		return m[1]
	}
	return ""
}
