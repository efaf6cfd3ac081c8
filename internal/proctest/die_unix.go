//go:build unix

package proctest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
)

// die ends the process in the way that is asked for, with a number where there is a
// "N" below. It returns only where that takes longer.
//
//	exit N     os.Exit
//	signal N   sends the signal to itself and waits for it
//	overflow   of the stack
//	maps       concurrent map writes
//	memory     runs out of it
//	close      closes the connection to the parent
//	garbage    writes nonsense to the parent and waits
//	child N    starts a process that sleeps, in its own group, and waits if there is an N
//	stray      starts one that has left the group and keeps its output open
func die(how string) error {
	var n int
	switch word, number, _ := strings.Cut(how, " "); word {
	case "exit":
		fmt.Sscan(number, &n)
		os.Exit(n)
	case "signal":
		fmt.Sscan(number, &n)
		if err := syscall.Kill(os.Getpid(), syscall.Signal(n)); err != nil {
			return err
		}
		select {}
	case "overflow":
		debug.SetMaxStack(1 << 16)
		overflow(0)
	case "maps":
		clash()
	case "memory":
		limit := syscall.Rlimit{Cur: 2 << 30, Max: 2 << 30}
		if err := syscall.Setrlimit(syscall.RLIMIT_AS, &limit); err != nil {
			return err
		}
		block := make([]byte, 4<<30)
		return fmt.Errorf("had room for %d bytes", len(block))
	case "close":
		if err := syscall.Shutdown(3, syscall.SHUT_RDWR); err != nil { // a thread that reads keeps it open
			return err
		}
		select {} // a result could still get through
	case "garbage":
		if _, err := syscall.Write(3, []byte(strings.Repeat("garbage ", 100))); err != nil {
			return err
		}
		select {} // what follows is not the fault of the call
	case "child":
		if err := exec.Command("sleep", "1000").Start(); err != nil || number == "" {
			return err
		}
		select {}
	case "stray":
		cmd := exec.Command("sleep", "1000")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return cmd.Start()
	}
	return fmt.Errorf("no way to end is called %q", how)
}

// clash has goroutines write to a map at once until the runtime notices.
func clash() {
	runtime.GOMAXPROCS(4)
	m := map[int]int{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				m[i%8] = i
			}
		})
	}
	wg.Wait()
}

// overflow calls itself until the stack is full.
func overflow(n int) int {
	var frame [128]int
	frame[n%128] = n
	//lint:ignore SA5007 that is what it is for
	return overflow(n+1) + frame[(n+1)%128]
}
