package tests

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mountOn mounts a file system on a new directory until the test ends.
func mountOn(t *testing.T, source, kind string, flags uintptr, options string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount(source, dir, kind, flags, options); err != nil {
		skipOrFail(t, fmt.Sprintf("the right to mount %s with %s (%v)", kind, options, err))
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// overlayOn mounts an overlay of the directories lower and upper on a new directory.
func overlayOn(t *testing.T, lower, upper string) (dir string) {
	t.Helper()
	must(t, makeDirs(upper, "u", "w"))
	return mountOn(t, "overlay", "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s/u,workdir=%s/w", lower, upper, upper))
}

func makeDirs(dir string, names ...string) (err error) {
	for _, name := range names {
		err = errors.Join(err, os.Mkdir(filepath.Join(dir, name), 0o777))
	}
	return err
}

// A reader gets a read lock wherever the file can be opened for reading only, and a writer gets the
// error.
func TestReadOnlyPlaces(t *testing.T) {
	asRoot(t)
	newFile := func(t *testing.T, dir string, size int) string {
		path := filepath.Join(dir, "lock")
		must(t, os.WriteFile(path, make([]byte, size), 0o666))
		return path
	}
	for _, test := range []struct {
		name string
		path func(t *testing.T) string
		want error // of a writer
	}{
		{"file system that is mounted read-only", func(t *testing.T) string {
			dir := mountOn(t, "fasteners-test", "tmpfs", 0, "size=1m")
			path := newFile(t, dir, 0)
			must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			return path
		}, unix.EROFS},
		{"directory that is mounted read-only", func(t *testing.T) string {
			from := t.TempDir()
			newFile(t, from, 0)
			dir := mountOn(t, from, "", unix.MS_BIND, "")
			must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
			return filepath.Join(dir, "lock")
		}, unix.EROFS},
		{"upper layer without space", func(t *testing.T) string {
			lower := t.TempDir()
			newFile(t, lower, 1<<20)
			return filepath.Join(overlayOn(t, lower, mountOn(t, "fasteners-test", "tmpfs", 0, "size=64k")), "lock")
		}, unix.ENOSPC},
		{"upper layer without inodes", func(t *testing.T) string {
			lower := t.TempDir()
			newFile(t, lower, 0)
			var err error
			upper := mountOn(t, "fasteners-test", "tmpfs", 0, "nr_inodes=20")
			dir := overlayOn(t, lower, upper)
			for i := 0; err == nil; i++ {
				err = os.WriteFile(filepath.Join(upper, fmt.Sprint(i)), nil, 0o666)
			}
			return filepath.Join(dir, "lock")
		}, unix.ENOSPC},
		{"layers without an upper one", func(t *testing.T) string {
			a, b := t.TempDir(), t.TempDir()
			newFile(t, a, 0)
			return filepath.Join(mountOn(t, "overlay", "overlay", 0, "lowerdir="+a+":"+b), "lock")
		}, unix.EROFS},
		{"immutable file", func(t *testing.T) string {
			path := newFile(t, t.TempDir(), 0)
			setImmutable(t, path)
			return path
		}, fs.ErrPermission},
		{"running program", func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "cat")
			cat, err := exec.LookPath("cat")
			must(t, err)
			// A child that this process forks meanwhile must not have it open for writing.
			must(t, exec.Command("cp", cat, path).Run())
			start(t, exec.Command(path))
			return path
		}, unix.ETXTBSY},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := test.path(t)
			for range 2 {
				for _, v := range variants(path) {
					if v.shared {
						v.mustTry(t, true)
						v.mustAcquire(t)
						v.mustRelease(t)
					} else {
						checkError(t, v.acquire(background), "acquire", path, test.want)
					}
				}
			}
		})
	}
}

// setImmutable does what chattr +i does, until the test ends.
func setImmutable(t *testing.T, path string) {
	t.Helper()
	const FS_IMMUTABLE_FL = 0x10 // linux/fs.h
	set := func(flag int) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flag)
	}
	if err := set(FS_IMMUTABLE_FL); err != nil {
		skipOrFail(t, "a file system with attributes: "+err.Error())
	}
	t.Cleanup(func() { must(t, set(0)) })
}

// In a user namespace the owner of a file of a lower layer may be nobody. The file cannot be copied
// up for him: EOVERFLOW.
func TestUnmappedLayer(t *testing.T) {
	asRoot(t)
	dir := openDir(t, 0o777)
	lower := filepath.Join(dir, "lower")
	must(t, os.Mkdir(lower, 0o777))
	must(t, os.WriteFile(filepath.Join(lower, "lock"), nil, 0o666))
	must(t, os.Chown(filepath.Join(lower, "lock"), alice, alice))
	cmd := helperCommand(unmappedHelper, dir)
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		skipOrFail(t, "unshare(1)")
	}
	cmd.Args = append([]string{"unshare", "--user", "--map-root-user", "--mount", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = unshare
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "cannot mount") || strings.Contains(string(out), "unshare: ") {
		skipOrFail(t, fmt.Sprintf("overlays in user namespaces: %v %s", err, out))
	}
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

var unmappedHelper = newHelper("unmapped", func(_ *bufio.Reader, args []string) error {
	dir, merged := args[0], filepath.Join(args[0], "merged")
	if err := makeDirs(dir, "upper", "work", "merged"); err != nil {
		return err
	}
	options := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work,userxattr", dir, dir, dir)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return fmt.Errorf("cannot mount: %w", err)
	}
	path := filepath.Join(merged, "lock")
	for _, v := range variants(path) {
		ok, err := v.try()
		switch {
		case v.shared && !ok:
			return fmt.Errorf("reader: %w", err)
		case !v.shared && !errors.Is(err, unix.EOVERFLOW):
			return fmt.Errorf("%s: %t, %v", v.name, ok, err)
		case ok:
			if err := v.release(); err != nil {
				return err
			}
		}
	}
	return nil
})

// A file that is created with a mode has it on all kinds of file systems, and those without
// modes do not mind.
func TestFileModeOn(t *testing.T) {
	asRoot(t)
	for kind, dir := range map[string]string{
		"tmpfs":   mountOn(t, "fasteners-test", "tmpfs", 0, ""),
		"ramfs":   mountOn(t, "fasteners-test", "ramfs", 0, ""),
		"overlay": overlayOn(t, t.TempDir(), mountOn(t, "fasteners-test", "tmpfs", 0, "")),
	} {
		must(t, os.Chmod(dir, 0o777))
		path := filepath.Join(dir, "lock")
		p := startHelper(t, userHelper, "0", "077", path, "write", "666")
		p.expect("true")
		p.finish()
		fi, err := os.Stat(path)
		must(t, err)
		if fi.Mode() != 0o666 {
			t.Errorf("%s: mode is %v", kind, fi.Mode())
		}
		if entries, err := os.ReadDir(dir); len(entries) != 1 || err != nil {
			t.Errorf("%s: there are %v, %v", kind, entries, err)
		}
		mustTryInProcess(t, path, "write", true)
	}
}
