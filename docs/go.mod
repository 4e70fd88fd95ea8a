module github.com/go-fasteners/fasteners/docs

go 1.26.0

require (
	github.com/alexflint/go-filemutex v1.3.0
	github.com/go-fasteners/fasteners v0.0.0
	github.com/gofrs/flock v0.13.2
	github.com/juju/mutex/v2 v2.0.0-20220203023141-11eeddb42c6c
	github.com/rogpeppe/go-internal v1.16.0
	golang.org/x/sys v0.49.0
)

require github.com/juju/errors v0.0.0-20220203013757-bd733f3c86b9 // indirect

replace github.com/go-fasteners/fasteners => ../
