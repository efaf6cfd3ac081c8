package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// delegate has groups below a group of cgroup v2 get controllers. Where that needs the group
// to be without processes, they are moved out of it if moveSelf says so.
func delegate(dir string, controllers []string, moveSelf bool) error {
	file := filepath.Join(dir, "cgroup.subtree_control")
	has, err := fields(file)
	if err != nil {
		return unsupported(err)
	}
	var missing []string
	for _, name := range controllers {
		if !slices.Contains(has, name) {
			missing = append(missing, "+"+name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	on := func() error { return write(file, strings.Join(missing, " ")) }
	err = on()
	if errors.Is(err, syscall.EBUSY) && moveSelf {
		if err = vacate(dir); err == nil {
			err = on()
		}
	}
	switch {
	case errors.Is(err, syscall.EBUSY) && !moveSelf:
		return fmt.Errorf("there are processes in %s, as this one, so that cgroup v2 sets no limits below it: let them be moved by Config.MoveSelf, or choose another group by Config.Parent (%w)", dir, err)
	case errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS):
		return unsupported(err)
	case err != nil:
		return fmt.Errorf("get the controllers %v for groups below %s: %w", missing, dir, err)
	}
	return nil
}

// vacate moves all processes of a group to mainGroup below it.
func vacate(dir string) error {
	to := filepath.Join(dir, mainGroup)
	if err := os.Mkdir(to, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return unsupported(err)
	}
	const rounds = 20 // as new ones may be started meanwhile
	for range rounds {
		pids, err := fields(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := write(filepath.Join(to, "cgroup.procs"), pid); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("move process %s to %s: %w", pid, to, err)
			}
		}
	}
	return fmt.Errorf("processes keep being started in %s", dir)
}

// write writes to a file of a cgroup, which exists.
func write(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
