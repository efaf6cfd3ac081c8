package child

import "os"

// Self returns the path of this program for starting it again. It is the file that
// this process runs, even if another has taken its name since.
func Self() (string, error) {
	const path = "/proc/self/exe"
	if _, err := os.Stat(path); err != nil {
		return os.Executable()
	}
	return path, nil
}
