// Package itest tests package postgres while servers, connections and networks fail. It is a module of
// its own, so that what it needs is not among the dependencies of that package.
package itest
