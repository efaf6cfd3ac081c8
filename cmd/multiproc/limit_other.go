//go:build !unix

package main

// filesLimit returns how many descriptors this process may have, or 0 if that is not known.
func filesLimit() int { return 0 }
