package main

import (
	"context"
	"strconv"
)

const (
	waitTexts = 64 // texts that are fetched
	waitTime  = "20ms"
	waitEach  = 16 // calls that a worker runs at once
)

// How often a round does the job of the row waits.
const waitJobs, quickWaitJobs = 5, 1

func waitsRow() row {
	const atOnce, pool, threads = "Processes, one for each text, all at once", "Pool of 2, Concurrency 16, Map", "Threads of 32, Map"
	return row{
		name:  "waits",
		title: "64 texts from a server that takes 20 ms for each",
		about: "A connection each, on the loopback interface. At best it takes 20 ms where all wait at once, 40 ms where 32 do, and 640 ms where 2 do. " +
			"A round takes the median of 5 times; executors and pools are there before, processes are those of a small program with package net, bench/waits.",
		metrics: []metric{
			{key: "seconds", title: "ms", unit: 1e-3},
		},
		contenders: []contender{
			waits(pool, ours, "pool", workers, waitEach),
			waits("Pool of 2, Concurrency 32, Map", ours, "pool", workers, waitTexts/workers),
			waits("Pool of 2, Map", ours, "pool", workers, 1),
			waits(atOnce, ours, "processes", waitTexts, 1),
			waits("Processes, one for each text, 2 at a time", ours, "processes", workers, 1),
			waits(threads, ours, "threads", workers*waitEach, 1),
			waits("64 goroutines", plain, "goroutines", 0, 0),
			pythonWaits("Process, one for each text, all at once", "waits_process"),
			pythonWaits("Pool of 2, warm", "waits_pool"),
			pythonWaits("ThreadPool of 32, warm", "waits_threads"),
		},
		goals: []goal{
			{text: "Pool, 16 calls at once in each worker: faster than one process for each text", of: figure{atOnce, "seconds"}, per: figure{pool, "seconds"}, least: 1},
			{text: "the same ≤ 1.5× Threads that run as many at once", of: figure{pool, "seconds"}, per: figure{threads, "seconds"}, most: 1.5},
		},
	}
}

// waits returns a contender of bench/waits.
func waits(name string, g group, how string, workers, concurrency int) contender {
	return contender{name, g, func(ctx context.Context, e *env) (figures, error) {
		return e.waits.figures(ctx, how, strconv.Itoa(e.pick(waitJobs, quickWaitJobs)), strconv.Itoa(waitTexts), waitTime, strconv.Itoa(workers), strconv.Itoa(concurrency))
	}}
}

// pythonWaits returns a contender of peers/peer.py that fetches from the server of bench/waits.
func pythonWaits(name, what string) contender {
	return contender{"Python " + name, peer, func(ctx context.Context, e *env) (figures, error) {
		server, err := e.waits.path()
		if err != nil {
			return nil, err
		}
		return e.python.figures(ctx, what, strconv.Itoa(e.pick(waitJobs, quickWaitJobs)), strconv.Itoa(waitTexts), waitTime, server)
	}}
}
