// Package cluster runs calls on many machines, over NATS JetStream.
//
//	c, err := cluster.Dial(ctx, cluster.Config{URL: "nats://10.0.0.1:4222"})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	squares, err := square.Map(ctx, c, []int{1, 2, 3})
//
// A [Cluster] is a multiproc.Executor: what runs on a Pool runs on it unchanged. Without a URL
// it is this machine alone, with a server and an agent in this process.
//
// On each machine an agent runs ("multiproc agent", [RunAgent]) that gets this program's executable from
// the server and runs it as its workers, if a key that it trusts has signed it ([Config].Key, "multiproc
// key sign"). There has to be a NATS server with JetStream, of version 2.11 or later; "multiproc server" is one ([StartServer]).
//
// A call runs at least once: when an agent is gone before it has answered, another runs the call
// again, 20 seconds after it was heard of last, and the first answer counts. What a function does to the world should be
// idempotent: multiproc.Key is the same for each run. When the submitter is gone its calls are withdrawn, within 15 seconds.
//
// # Errors
//
// What becomes of a call is told by the errors of package multiproc, as on a Pool. Besides those there are
// [ErrNoAgents], when no agent for the platform of this program has come within [Config].AgentTimeout;
// [*RefusedError], when all agents that are there have refused the call; [*AgentError], when something other than the
// call has kept an agent from running it; and [ErrPoison], when one agent after the other was gone with the call. What
// the NATS servers do not allow is a [*PermissionError].
//
// Agents check signatures, and their errors arrive as the text of a RefusedError: errors.Is does not find
// [ErrUnsigned] in it, nor errors.As an [*UntrustedError].
//
// # Concurrency
//
// Everything in this package may be used from several goroutines at once, but for a [Trust]: it is a map, which
// nobody may write to while others use it.
//
// # Protocol
//
// Calls of one function travel in chunks that make about 20 ms of work, in the stream MP_TASKS,
// from which agents pull no more than they can run soon. Answers come back in a stream of the user, stored before the chunk is
// acknowledged; more than 256 KiB of either goes through an object store. Agents and jobs say that they are
// alive in buckets whose keys expire. The submitter keeps its inputs until they are answered, and sends again
// what is neither in the stream nor answered. Decisions 0016 and 0017 say why,
// docs/cluster.md what happens when something dies.
package cluster
