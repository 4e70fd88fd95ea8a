module github.com/go-fasteners/fasteners

go 1.25.0

require golang.org/x/sys v0.42.0
