//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package cluster

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
)

const haveLocks = true

// ownedByOther reports whether a file belongs to a user who is neither the one of this process nor root. Where this process
// is in a user namespace that does not know all users, as in some containers without root, the system says of the others
// that they are nobody: the root of the machine is one of them, so nobody is not taken for another user there.
func ownedByOther(info fs.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && s.Uid != 0 && int(s.Uid) != os.Geteuid() && !(s.Uid == nobody && strangers())
}

// nobody is the user whom Linux shows in the place of those whom a namespace does not know (kernel.overflowuid).
const nobody = 65534

// strangers reports whether there are such users.
var strangers = sync.OnceValue(func() bool {
	users, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !slices.Equal(strings.Fields(string(users)), []string{"0", "0", "4294967295"})
})

// tryLock takes the lock of a file, for this process alone or with others, if it can be had at once. It is given back
// when the file is closed or the process ends, however that ends.
func tryLock(f *os.File, alone bool) (bool, error) {
	how := syscall.LOCK_SH
	if alone {
		how = syscall.LOCK_EX
	}
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		default:
			return false, err
		}
	}
}
