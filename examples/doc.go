// Package examples has a program in each folder below it. Every one stands alone and runs with
// go run, as in
//
//	go run ./examples/threads
//
// Threads and processes do the same CPU-heavy work on goroutines and in processes; files-process
// and files-pool the same input and output in one process for each file and in a pool;
// io-concurrency what waits in one process for each call and in a pool whose workers run many at
// once; isolation shows what becomes of a Map whose calls crash; cluster runs
// calls on many machines. The tests in this folder build and run them all.
package examples
