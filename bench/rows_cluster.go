package main

import "strconv"

// What the contenders of the cluster's rows are told.
const (
	within  = "inside" // server, agent and submitter are one process
	overTCP = "apart"  // they are a process each
	memory  = "memory"
	file    = "file"
	reply   = "reply"  // results are plain messages
	stream  = "stream" // results go through a second stream
	asIs    = "as-is"  // the worker gives back what it got
	handed  = "handed" // it has another process do that
)

// How many calls a round of cluster-call times.
const clusterCalls, quickClusterCalls = 4_000, 100

const placesAbout = "The cluster is embedded (one process, besides the workers, and streams in memory) or apart (server, agent and submitter are a process each, " +
	"with TCP between them, and streams in files). "

func clusterCallRow() row {
	const embedded, apart = "Cluster, embedded", "Cluster, apart"
	const inProcess, processes = "in one process, memory; results by a stream", "in 3 processes, files; results by a stream"
	const plainly, pipe = "; results by a plain message", "; handed on over a pipe"
	engine := func(name string, more ...string) contender {
		return engine(name, "call", clusterCalls, quickClusterCalls, more...)
	}
	return row{
		name:  "cluster-call",
		title: "One call at a time on a cluster",
		about: placesAbout + "A call takes 100 bytes and gives them back. The engine by itself publishes the bytes to a work queue, has a worker pull them, publish them as the " +
			"result, and acknowledge; that worker is in the place of our agent, which hands the call on to another process, as some of the contenders do over a pipe. Results by a plain message are lost with a connection. " +
			"asynq looks for tasks every millisecond here, and not every second, which is its default. A round makes 4,000 calls, or as many as 8 s have room for.",
		metrics: percentileMetrics,
		contenders: []contender{
			clustered(embedded, "call", clusterCalls, quickClusterCalls, within),
			clustered(apart, "call", clusterCalls, quickClusterCalls, overTCP),
			engine(inProcess+pipe, within, memory, stream, handed),
			engine(inProcess, within, memory, stream, asIs),
			engine("in one process, memory"+plainly, within, memory, reply, asIs),
			engine(processes+pipe, overTCP, file, stream, handed),
			engine(processes, overTCP, file, stream, asIs),
			engine("in 3 processes, files"+plainly, overTCP, file, reply, asIs),
			asynq("one call at a time", "latency", clusterCalls, quickClusterCalls),
			pythonPackage("ray", "one call at a time", "latency_ray", clusterCalls, quickClusterCalls),
		},
		goals: []goal{
			{text: "embedded ≤ 1.5× the engine in one process", of: figure{embedded, "p50"}, per: figure{jetStream + inProcess, "p50"}, most: 1.5},
			{text: "embedded ≤ 1.5× the engine that hands calls on", of: figure{embedded, "p50"}, per: figure{jetStream + inProcess + pipe, "p50"}, most: 1.5},
			{text: "apart ≤ 1.5× the engine in 3 processes", of: figure{apart, "p50"}, per: figure{jetStream + processes, "p50"}, most: 1.5},
			{text: "apart ≤ 1.5× the engine that hands calls on", of: figure{apart, "p50"}, per: figure{jetStream + processes + pipe, "p50"}, most: 1.5},
		},
	}
}

// Calls that are sent together: few, and about as many as a Cluster sends of such calls by itself.
const fewCalls, manyCalls = 100, 16_384

func clusterMapRow() row {
	const embedded, apart = "Cluster, embedded, Map", "Cluster, apart, Map"
	const few, many = ", 100 calls a message", ", 16,384 calls a message"
	const withFew, withMany = ", WithBatch(100)", ", WithBatch(16384)"
	const inProcess, processes = jetStream + "in one process, memory", jetStream + "in 3 processes, files"
	ours := func(name, what, where string, size int) contender {
		return clustered(name, what, calls, quickCalls, where, strconv.Itoa(size))
	}
	engine := func(name, where, storage string, size int) contender {
		return engine(name, "map", calls, quickCalls, where, storage, stream, strconv.Itoa(size))
	}
	return row{
		name:  "cluster-map",
		title: "Map of x→x² over 1 M ints on a cluster, 2 workers",
		about: placesAbout + "Results of the engine by itself come through a second stream, as ours do. By itself a Cluster sends as many calls together as take 20 ms, or as " +
			"256 KiB have room for, and so it does with WithBatch(100), which hands 100 at a time to a worker. Peers do fewer calls; asynq runs two at a time.",
		metrics: []metric{
			{key: "rate", title: "1,000 calls/s", unit: 1e3},
		},
		contenders: []contender{
			ours(embedded, "map", within, 0),
			ours(embedded+withMany, "map", within, manyCalls),
			ours(embedded+withFew, "map", within, fewCalls),
			ours("Cluster, embedded, StreamUnordered", "unordered", within, 0),
			ours(apart, "map", overTCP, 0),
			ours(apart+withMany, "map", overTCP, manyCalls),
			ours(apart+withFew, "map", overTCP, fewCalls),
			ours("Cluster, apart, StreamUnordered", "unordered", overTCP, 0),
			engine("in one process, memory"+many, within, memory, manyCalls),
			engine("in one process, memory"+few, within, memory, fewCalls),
			engine("in 3 processes, files"+many, overTCP, file, manyCalls),
			engine("in 3 processes, files"+few, overTCP, file, fewCalls),
			asynq("16 goroutines that enqueue, then ask for results", "rate", slowCalls/10, quickSlowCalls/10),
			pythonPackage("ray", "one task a call", "map_ray", slowCalls/10, quickSlowCalls/10),
		},
		goals: []goal{
			{text: "embedded ≥ 500,000 calls/s", of: figure{embedded, "rate"}, least: 500e3},
			{text: "apart ≥ 500,000 calls/s", of: figure{apart, "rate"}, least: 500e3},
			{text: "embedded ≥ 0.4× the engine, 16,384 calls at a time", of: figure{embedded + withMany, "rate"}, per: figure{inProcess + many, "rate"}, least: 0.4},
			{text: "apart ≥ 0.4× the engine, 16,384 calls at a time", of: figure{apart + withMany, "rate"}, per: figure{processes + many, "rate"}, least: 0.4},
			{text: "embedded ≥ 0.4× the engine, 100 calls at a time", of: figure{embedded + withFew, "rate"}, per: figure{inProcess + few, "rate"}, least: 0.4},
			{text: "apart ≥ 0.4× the engine, 100 calls at a time", of: figure{apart + withFew, "rate"}, per: figure{processes + few, "rate"}, least: 0.4},
		},
	}
}

// clusterPayload is how many bytes are sent at once.
const clusterPayload, quickClusterPayload = 64 << 20, 4 << 20

func clusterPayloadRow() row {
	const embedded, apart = "Cluster, embedded, length", "Cluster, apart, length"
	const embeddedEcho, apartEcho = "Cluster, embedded, there and back", "Cluster, apart, there and back"
	const inProcess, processes = jetStream + "in one process, memory, put and get", jetStream + "in 2 processes, files, put and get"
	const twice = ", twice"
	return row{
		name:  "cluster-payload",
		title: "64 MiB of bytes as an argument, and as a result, on a cluster",
		about: placesAbout + "A function returns the length of its argument, or the argument, which is twice as much to carry. The limit is the engine's object store: an object is " +
			"put, got and deleted, once or twice, by one process. A round takes the median of 3 after one to warm up.",
		metrics: []metric{
			{key: "rate", title: "MB/s carried", unit: 1e6},
		},
		contenders: []contender{
			clustered(embedded, "length", clusterPayload, quickClusterPayload, within),
			clustered(embeddedEcho, "echo", clusterPayload, quickClusterPayload, within),
			clustered(apart, "length", clusterPayload, quickClusterPayload, overTCP),
			clustered(apartEcho, "echo", clusterPayload, quickClusterPayload, overTCP),
			engine("in one process, memory, put and get", "payload", clusterPayload, quickClusterPayload, within, memory, "1"),
			engine("in one process, memory, put and get"+twice, "payload", clusterPayload, quickClusterPayload, within, memory, "2"),
			engine("in 2 processes, files, put and get", "payload", clusterPayload, quickClusterPayload, overTCP, file, "1"),
			engine("in 2 processes, files, put and get"+twice, "payload", clusterPayload, quickClusterPayload, overTCP, file, "2"),
			pythonPackage("ray", "put, length", "payload_ray", clusterPayload, quickClusterPayload, "1"),
			pythonPackage("ray", "put, there and back", "payload_ray", clusterPayload, quickClusterPayload, "2"),
		},
		goals: []goal{
			{text: "embedded, length ≥ 0.7× the object store", of: figure{embedded, "rate"}, per: figure{inProcess, "rate"}, least: 0.7},
			{text: "embedded, there and back ≥ 0.7× the object store", of: figure{embeddedEcho, "rate"}, per: figure{inProcess + twice, "rate"}, least: 0.7},
			{text: "apart, length ≥ 0.7× the object store", of: figure{apart, "rate"}, per: figure{processes, "rate"}, least: 0.7},
			{text: "apart, there and back ≥ 0.7× the object store", of: figure{apartEcho, "rate"}, per: figure{processes + twice, "rate"}, least: 0.7},
		},
	}
}

// asynq returns a contender of peers/asynq.
func asynq(name, what string, full, quick int) contender {
	return external("asynq, "+name, peer, func(e *env) tool { return e.asynq }, what, full, quick)
}
