package cluster

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// What a cluster is made of on the server. Tasks, agents and leases are there once; each user has streams and
// buckets of its own besides, so that permissions can be given by user. Who must not even see each
// other have NATS accounts of their own.
const (
	tasksStream  = "MP_TASKS"
	agentsBucket = "mp-agents"
	leasesBucket = "mp-leases"

	resultsStream  = "MP_RESULTS_" // + user
	programsBucket = "mp-programs-"
	blobsBucket    = "mp-blobs-"

	taskSubject    = "mp.task."    // + platform + "." + job + "." + chunk
	resultSubject  = "mp.result."  // + job
	controlSubject = "mp.control." // + job
)

// How long things may be silent. Variables, so that tests need not wait for as long.
var (
	ackWait   = 20 * time.Second // an agent that holds a chunk
	beatEvery = 3 * time.Second  // an agent, and a job
	agentTTL  = 10 * time.Second
	leaseTTL  = 15 * time.Second
)

// How long what nobody removes is kept. A chunk is removed by its age also while an agent is at it, and may wait for as long as
// two others take before it: calls may take a third of that.
const (
	taskAge   = 30 * 24 * time.Hour
	resultAge = 7 * 24 * time.Hour // of results, and of objects
)

// Sizes in bytes.
const (
	maxChunk   = 256 << 10 // of arguments in a message; more goes through the object store
	maxOutcome = 256 << 10 // likewise of answers
	maxMessage = 512 << 10 // what such a message has at most, as some of them are half as large again
	tasksMax   = 1 << 30   // in the stream of tasks
	resultsMax = 4 << 30   // in that of results, of each user
)

// here is the platform of this process.
const here = runtime.GOOS + "-" + runtime.GOARCH

// defaultUser is who submits where nobody is named.
const defaultUser = "default"

// checkName returns what is wrong with a user, or a platform, which become part of subjects and of the names of
// buckets.
func checkName(what, name string) error {
	good := name != "" && len(name) <= 32
	for _, r := range name {
		good = good && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}
	if !good {
		return fmt.Errorf("%s is %q; give 1 to 32 letters, digits, - and _", what, name)
	}
	return nil
}

// jobName is the name of a job: its user, a dot, and what tells it from the others.
func jobName(user, id string) string { return user + "." + id }

// userOf returns whose a job is.
func userOf(job string) string {
	user, _, _ := strings.Cut(job, ".")
	return user
}

// checkJob returns what is wrong with the name of a job that comes from another process.
func checkJob(job string) error {
	user, id, _ := strings.Cut(job, ".")
	return errors.Join(checkName("the user", user), checkName("the job", id))
}

// consumerOf is the name of the consumer that all agents of a platform share.
func consumerOf(platform string) string { return "agents-" + platform }

// taskSubjectOf is the subject of a chunk. No more than a window of chunks is in the stream at a time.
func taskSubjectOf(platform, job string, id uint64) string {
	return taskSubject + platform + "." + job + "." + strconv.FormatUint(id, 10)
}

// taskOf returns which chunk of which job a subject is that of.
func taskOf(subject string) (job string, id uint64, ok bool) {
	parts := strings.Split(subject, ".") // mp task platform user job chunk
	if len(parts) != 6 {
		return "", 0, false
	}
	id, err := strconv.ParseUint(parts[5], 10, 64)
	return jobName(parts[3], parts[4]), id, err == nil
}
