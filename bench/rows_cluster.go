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
)

// How many calls a round of cluster-call times.
const clusterCalls, quickClusterCalls = 4_000, 100

const placesAbout = "The cluster is embedded (one process, besides the workers, and streams in memory) or apart (server, agent and submitter are a process each, " +
	"with TCP between them, and streams in files). "

func clusterCallRow() row {
	const embedded, apart = "Cluster, embedded", "Cluster, apart"
	const inProcess, processes = "JetStream in one process, memory; results by a stream", "JetStream in 3 processes, files; results by a stream"
	return row{
		name:  "cluster-call",
		title: "One call at a time on a cluster",
		about: placesAbout + "A call takes 100 bytes and gives them back. The engine by itself publishes the bytes to a work queue, has a worker pull them, publish them as the " +
			"result, and acknowledge: its worker is in the place of our agent, which hands the call on to a process. Results by a plain message are lost with a connection. " +
			"asynq looks for tasks every millisecond here, and not every second, which is its default. A round makes 4,000 calls, or as many as 8 s have room for.",
		metrics: percentileMetrics,
		contenders: []contender{
			clustered(embedded, "call", clusterCalls, quickClusterCalls, within),
			clustered(apart, "call", clusterCalls, quickClusterCalls, overTCP),
			engine("in one process, memory; results by a stream", "call", clusterCalls, quickClusterCalls, within, memory, stream),
			engine("in one process, memory; results by a plain message", "call", clusterCalls, quickClusterCalls, within, memory, reply),
			engine("in 3 processes, files; results by a stream", "call", clusterCalls, quickClusterCalls, overTCP, file, stream),
			engine("in 3 processes, files; results by a plain message", "call", clusterCalls, quickClusterCalls, overTCP, file, reply),
			asynq("one call at a time", "latency", clusterCalls, quickClusterCalls),
			pythonPackage("ray", "one call at a time", "latency_ray", clusterCalls, quickClusterCalls),
		},
		goals: []goal{
			{text: "embedded ≤ 1.5× the engine in one process, by a stream", of: figure{embedded, "p50"}, per: figure{inProcess, "p50"}, most: 1.5},
			{text: "apart ≤ 1.5× the engine in 3 processes, by a stream", of: figure{apart, "p50"}, per: figure{processes, "p50"}, most: 1.5},
		},
	}
}

// Calls that are sent together: few, and about as many as a Cluster sends of such calls by itself.
const fewCalls, manyCalls = 100, 16_384

func clusterMapRow() row {
	const embedded, apart = "Cluster, embedded, Map", "Cluster, apart, Map"
	const few, many = ", 100 calls a message", ", 16,384 calls a message"
	const inProcess, processes = "JetStream in one process, memory", "JetStream in 3 processes, files"
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
			"256 KiB have room for. Peers do fewer calls; asynq runs two at a time.",
		metrics: []metric{
			{key: "rate", title: "1,000 calls/s", unit: 1e3},
		},
		contenders: []contender{
			ours(embedded, "map", within, 0),
			ours(embedded+many, "map", within, manyCalls),
			ours(embedded+few, "map", within, fewCalls),
			ours("Cluster, embedded, StreamUnordered", "unordered", within, 0),
			ours(apart, "map", overTCP, 0),
			ours(apart+many, "map", overTCP, manyCalls),
			ours(apart+few, "map", overTCP, fewCalls),
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
			{text: "embedded ≥ 0.4× the engine, both 16,384 calls a message", of: figure{embedded + many, "rate"}, per: figure{inProcess + many, "rate"}, least: 0.4},
			{text: "apart ≥ 0.4× the engine, both 16,384 calls a message", of: figure{apart + many, "rate"}, per: figure{processes + many, "rate"}, least: 0.4},
			{text: "embedded ≥ 0.4× the engine, both 100 calls a message", of: figure{embedded + few, "rate"}, per: figure{inProcess + few, "rate"}, least: 0.4},
			{text: "apart ≥ 0.4× the engine, both 100 calls a message", of: figure{apart + few, "rate"}, per: figure{processes + few, "rate"}, least: 0.4},
		},
	}
}

// clusterPayload is how many bytes are sent at once.
const clusterPayload, quickClusterPayload = 64 << 20, 4 << 20

func clusterPayloadRow() row {
	const embedded, apart = "Cluster, embedded, length", "Cluster, apart, length"
	const embeddedEcho, apartEcho = "Cluster, embedded, there and back", "Cluster, apart, there and back"
	const inProcess, processes = "JetStream in one process, memory, put and get", "JetStream in 3 processes, files, put and get"
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
			engine("in 3 processes, files, put and get", "payload", clusterPayload, quickClusterPayload, overTCP, file, "1"),
			engine("in 3 processes, files, put and get"+twice, "payload", clusterPayload, quickClusterPayload, overTCP, file, "2"),
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
