//go:build !linux

package child

// watches tells whether the end of a child is noticed here before it is reaped.
const watches = false

// watch does nothing: there is no portable way to see the end of a child without
// reaping it.
func (c *Child) watch(func()) {}

// Exited returns false: likewise.
func (c *Child) Exited() bool { return false }
