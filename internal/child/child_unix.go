//go:build unix

package child

import (
	"os"
	"syscall"
)

func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func signalGroup(p *os.Process, sig syscall.Signal) error {
	err := syscall.Kill(-p.Pid, sig)
	if sig == syscall.SIGKILL { // also where it has left its group. It has not been waited for, so that the id is its own
		if alone := p.Signal(sig); err != nil {
			err = alone
		}
	}
	if err == syscall.ESRCH || err == syscall.EPERM { // EPERM: macOS, when only zombies are left
		return os.ErrProcessDone
	}
	return err
}

func endedBy(s *os.ProcessState) syscall.Signal {
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return ws.Signal()
	}
	return 0
}

// KillGroup kills this process and every other one in its group, without another
// instruction being run.
func KillGroup() {
	syscall.Kill(0, syscall.SIGKILL)
	os.Exit(137) // not reached: a process can always kill itself
}
