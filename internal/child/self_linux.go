package child

import (
	"os"

	"golang.org/x/sys/unix"
)

// Self returns the path of this program for starting it again. It is the file that
// this process runs, even if another has taken its name since.
func Self() (string, error) {
	const path = "/proc/self/exe"
	if unix.Access(path, unix.F_OK) != nil {
		return os.Executable()
	}
	return path, nil
}
