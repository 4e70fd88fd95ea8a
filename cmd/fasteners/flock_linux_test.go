package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The program, called flock, does what flock(1) does: same output of the
// command, same exit status.
func TestFlock(t *testing.T) {
	theirs, err := exec.LookPath("flock")
	if err != nil {
		skipOrFail(t, "flock(1)")
	}
	ours := filepath.Join(t.TempDir(), "flock")
	must(t, os.Symlink(filepath.Join(program, "fasteners"), ours))
	seconds := regexp.MustCompile(`[0-9.]+ seconds`)
	// In these scripts $F is flock, and l a lock file.
	for _, script := range []string{
		`$F l true`, `$F l false`, `$F l sh -c 'exit 7'`, `$F l no-such-command`, `$F l /etc/passwd`,
		`$F l sh -c 'kill -9 $$'`, `$F l sh -c 'kill -TERM $$'`,
		`$F l -c 'echo a b; exit 7'`, `$F l --command 'echo a'`, `$F l -c`, `$F l -c a b`, `$F -c a l`,
		`$F`, `$F l`, `$F -z l true`, `$F -w x l true`, `$F -E 256 l true`, `$F -E x l true`, `$F -E -1 l true`,
		`$F -- l echo --`, `$F l echo -n -s`, `$F l -- echo`,
		`$F no-such-directory/l true`, `$F 99`, `$F 9x`, `$F -oF l true`,
		`$F -F l echo a`, `$F -F l -c 'echo a'`, `$F -o l echo a`, `$F -F l sh -c 'exit 7'`,
		`$F l $F -n l echo a`, `$F l $F --nb l echo a`, `$F l $F --nonblock l echo a`,
		`$F l $F -w 0.01 l echo a`, `$F l $F -w 0 l echo a`, `$F l $F --wait 0.01 l echo a`,
		`$F l $F --timeout 0.01 l echo a`, `$F l $F -n -E 9 l echo a`, `$F l $F -w .01 -E 9 l echo a`,
		`$F l $F -n --conflict-exit-code 0 l echo a`, `$F l $F -n -w 5 l echo a`,
		`$F -s l $F -n -s l echo a`, `$F -s l $F -n l echo a`, `$F l $F -n -s l echo a`,
		`$F -s l $F -n -x -s l echo a`, `$F -s l $F -n -sx l echo a`, `$F -s l $F -n -s -e l echo a`,
		`$F --shared l $F --nonblock --shared l echo a`, `$F --exclusive l $F -n l echo a`,
		`printf 'echo a $1' >s; chmod +x s; $F l ./s b; $F -F l ./s b; PATH=.:$PATH; $F l s b`,
		`$F l -c ''`, `$F -u l -c ''`,
		`$F -u l echo a`, `$F l $F -u l echo a`, `$F -x l $F -u l $F -n l echo a`,
		`exec 9>l; $F 9; $F -n l true; echo $?; $F -u 9; $F -n l true`,
		`exec 9>l; $F 9; $F 9; exec 8>l; $F -n 8`,
		`exec 9<>l 8<>l; $F -s 9; $F -s -n 8; echo $?; $F -n 8; echo $?; $F -u 9; $F -n 8`,
		`exec 9>l; $F -n 9; (exec 9>&-; $F -n l true); echo $?; exec 9>&-; $F -n l true`,
		`exec 9>l; $F -n 9 echo this is a file called 9; ls`,
		`$F l sh -c 'exec >&- 2>&-; cat 0<p & :'; $F -n l true; s=$?; : >p; $F l echo $s`,
		`$F -o l sh -c 'exec >&- 2>&-; cat 0<p & :'; $F -n l true; s=$?; : >p; $F l echo $s`,
		`$F --verbose -n l true`, `$F l $F -n --verbose l true`,
		`$F --help >/dev/null`, `$F -h >/dev/null`, `$F --version >/dev/null`, `$F -V >/dev/null`,
		`echo data >l; $F l true; cat l`, `echo hello | $F l cat`,
	} {
		run := func(flock string) string {
			cmd := exec.Command("sh", "-c", "mkfifo p; "+strings.ReplaceAll(script, "$F", `"`+flock+`"`))
			cmd.Dir = t.TempDir()
			cmd.Env = append(os.Environ(), "SHELL=/bin/sh")
			var out bytes.Buffer
			cmd.Stdout = &out
			_ = cmd.Run()
			text := seconds.ReplaceAllString(out.String(), "0 seconds")
			return cmd.ProcessState.String() + "\n" + text
		}
		if want, got := run(theirs), run(ours); got != want {
			t.Errorf("%s\n%s\nwant (as flock(1)):\n%s", script, got, want)
		}
	}
}
