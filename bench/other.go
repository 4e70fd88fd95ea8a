//go:build !linux

package main

import "log"

func main() {
	log.Fatal("bench needs Linux: it uses open file description locks and /proc")
}
