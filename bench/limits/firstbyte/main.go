// Program firstbyte writes one byte to standard output and ends when standard input does. The byte
// tells when a program in Go has started; until the end it shows what one that is idle takes.
package main

import "os"

func main() {
	os.Stdout.Write([]byte{'x'})
	os.Stdin.Read(make([]byte, 1))
}
