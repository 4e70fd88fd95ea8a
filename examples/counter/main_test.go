package main

import (
	"os"
	"strconv"
	"testing"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-work" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestCompare(t *testing.T) {
	if err := compare(t.TempDir(), 3, 100); err != nil {
		t.Fatal(err)
	}
}

func TestRunCounts(t *testing.T) {
	dir := t.TempDir()
	file := dir + "/number"
	if err := os.WriteFile(file, []byte("7"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := run(file, dir+"/lock", 2, 50); err != nil {
		t.Fatal(err)
	}
	if n, err := read(file); err != nil || n != 107 {
		t.Errorf("number is %s, %v", strconv.Itoa(n), err)
	}
}
