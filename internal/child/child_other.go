//go:build !unix

package child

import (
	"os"
	"syscall"
)

func ownGroup() *syscall.SysProcAttr { return nil }

func signalGroup(p *os.Process, sig syscall.Signal) error {
	if sig == syscall.SIGKILL {
		return p.Kill()
	}
	return p.Signal(sig)
}

func endedBy(*os.ProcessState) syscall.Signal { return 0 }

// KillGroup ends this process.
func KillGroup() { os.Exit(137) }
