package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
)

// crashes are ways to end a Go program. All but the first are beyond recover.
var crashes = map[string]func(){
	"nil pointer": func() {
		var p *int
		*p = 1
	},
	"kill":                   func() { raise(syscall.SIGKILL) },
	"segmentation violation": func() { raise(syscall.SIGSEGV) },
	"exit":                   func() { os.Exit(3) },
	"stack overflow": func() {
		debug.SetMaxStack(1 << 20) // instead of a gigabyte, which takes a second
		fmt.Println(depth(1))
	},
	"map": func() {
		runtime.GOMAXPROCS(4)
		counts := map[string]int{}
		for range 4 {
			// Ends with the process, as soon as the runtime notices.
			go func() {
				for {
					counts["written"]++
				}
			}()
		}
		select {}
	},
}

// raise sends this process a signal, and waits for the end.
func raise(sig syscall.Signal) {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(sig)
	}
	if err != nil {
		panic(err)
	}
	select {}
}

// depth does not return before n has become negative.
func depth(n int) int {
	if n < 0 {
		return 0
	}
	return depth(n+1) + 1
}
