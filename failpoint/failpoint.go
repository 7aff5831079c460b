// Package failpoint lets a test kill this process at a named point of its work: with SIGKILL, so that nothing is tidied
// up. BELFRY_FAILPOINT=name:n in a process's environment arms it, and Hit is the only function to know. Without that
// variable a Hit costs one comparison.
package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Points that are in the code. The harness strikes at each of them (soak/).
const (
	// Polled: a consumer has fetched records and not yet handed them over.
	Polled = "stream.polled"
	// BeforeCommit: tasks are done, and nothing of it is on Kafka.
	BeforeCommit = "stream.commit.before"
	// Produced: the outputs are in an open transaction, the offsets are not.
	Produced = "stream.commit.produced"
	// Offsets: outputs and offsets are in the open transaction, and it is not ended.
	Offsets = "stream.commit.offsets"
	// AfterCommit: Kafka has it, and this process has not noted it.
	AfterCommit = "stream.commit.after"
	// Revoke: what was in flight has ended, and its commit is not made. A stop in good order passes here too.
	Revoke = "stream.revoke"
	// BeforeWrite: a request to a provider is made, and not on the wire.
	BeforeWrite = "provider.write.before"
	// AfterWrite: it is on the wire, whole.
	AfterWrite = "provider.write.after"
	// Answered: the provider has answered, and the delivery has not ended.
	Answered = "provider.answered"
	// Retry: a delivery has fallen due, and is still on its retry topic.
	Retry = "senders.retry"
	// ReplayCheckpoint: a replay is about to note how far it is.
	ReplayCheckpoint = "replay.checkpoint"
)

// Points are all of them.
var Points = []string{
	Polled, BeforeCommit, Produced, Offsets, AfterCommit, Revoke, BeforeWrite, AfterWrite, Answered, Retry, ReplayCheckpoint,
}

var (
	armed, first = parse(os.Getenv("BELFRY_FAILPOINT"))
	hits         atomic.Int64
)

// parse reads "name" or "name:n".
func parse(s string) (name string, n int64) {
	name, count, counted := strings.Cut(s, ":")
	if !counted {
		return name, 1
	}
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil || n < 1 {
		panic("BELFRY_FAILPOINT is not name:n, with n from 1: " + s)
	}
	return name, n
}

// Hit kills the process when the point is the armed one, and this the n-th time that it is passed.
func Hit(point string) {
	if armed != "" && armed == point && hits.Add(1) == first {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // cannot be refused to oneself
		select {}                                      // it takes a moment
	}
}
