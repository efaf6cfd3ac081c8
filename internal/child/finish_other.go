//go:build !linux

package child

// finish waits until the child ends by itself. Others of its group are not looked
// for: their id is free for use by then.
func (c *Child) finish() Ended {
	e := c.wait(nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reaped = true
	return e
}
