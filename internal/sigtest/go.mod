module github.com/go-fasteners/fasteners/internal/sigtest

go 1.25.0

require (
	github.com/go-fasteners/fasteners v0.0.0
	golang.org/x/sys v0.42.0
)

replace github.com/go-fasteners/fasteners => ../..
