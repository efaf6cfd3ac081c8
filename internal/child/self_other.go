//go:build !linux

package child

import "os"

// Self returns the path of this program for starting it again.
func Self() (string, error) { return os.Executable() }
