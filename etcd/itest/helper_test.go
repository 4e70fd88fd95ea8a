package itest

func runHelper() {}
