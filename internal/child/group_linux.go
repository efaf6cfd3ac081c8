package child

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// EndGroup ends this process and all others of its group. The others are asked to by SIGTERM
// first, and have until the grace has passed to do so; then all are killed. Where there are
// no others it does not wait.
func EndGroup(grace time.Duration) {
	others := members(unix.Getpgrp())
	for _, pid := range others {
		syscall.Kill(pid, syscall.SIGTERM)
	}
	poll := time.NewTicker(2 * time.Millisecond)
	for deadline := time.Now().Add(grace); len(others) > 0 && time.Now().Before(deadline); {
		<-poll.C
		others = members(unix.Getpgrp())
	}
	KillGroup()
}

// members returns the processes of a group that have not ended, but for this one.
func members(group int) (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has gone
		}
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // state, parent, group, …
		if len(fields) > 2 && string(fields[2]) == strconv.Itoa(group) && fields[0][0] != 'Z' && fields[0][0] != 'X' {
			pids = append(pids, pid)
		}
	}
	return pids
}

// reapGroup waits for what was left of a group that was killed, and whose leader has been
// waited for. Only where this process adopts what has lost its parent, as process 1 of a
// container or a subreaper (prctl(2)) does, is there anything to wait for; nobody else is
// going to. What has left the group cannot be told from what others have started: that is
// for an init to do, such as that of docker run --init.
func reapGroup(group int) {
	for deadline := time.Now().Add(reapTimeout); time.Now().Before(deadline); {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-group, &ws, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR || err == nil && pid > 0:
			continue
		case err != nil:
			return // ECHILD: there is nobody
		}
		<-time.After(time.Millisecond) // it was killed and is about to end
	}
}
