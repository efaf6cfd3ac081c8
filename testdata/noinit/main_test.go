package main

import "testing"

// TestWithoutMain uses workers in a package that has no TestMain.
func TestWithoutMain(t *testing.T) { main() }
