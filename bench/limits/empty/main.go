// Program empty does nothing: what it takes to start it and to see it end, no program in Go can do
// without.
package main

func main() {}
