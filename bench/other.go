//go:build !linux

package main

import "log"

func main() {
	log.Fatal("bench needs Linux: for its locks of open file descriptions, and its /proc")
}
