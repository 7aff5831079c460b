package senders

import (
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
)

// trouble is what deliveries to a destination have met since it last took one: failures of its service, or refusals of its
// credential. One target's failure is its own, and so is one campaign's, however often it comes. It is the destination's when
// different ones meet it and none passes. Its owner locks.
type trouble struct {
	// since is when the first of them was asked. It is zero when there is none.
	since    time.Time
	failures int
	// targets are hashes of those that failed, illAtOnce at most.
	targets map[uint64]struct{}
	// run is the campaign of the first, and several says that others' failed too.
	run     string
	several bool
	// limited counts the failures that said that it was too much, said those that said anything: that were an answer.
	limited, said int
}

const (
	// illFailures of two or more targets within no less than illAfter show that a destination takes nothing: fewer would be one
	// lost connection's worth. illAtOnce different targets show it in no time.
	illFailures = 10
	illAfter    = time.Second
	illAtOnce   = 100
)

// note adds a failure.
func (t *trouble) note(j *job, v Verdict) {
	if t.failures == 0 {
		t.since, t.run = j.begun, strings.Clone(j.name) // which lies in the record
	}
	t.failures++
	if v.Limited {
		t.limited++
	}
	if !v.Unknown {
		t.said++
	}
	t.several = t.several || t.run != j.name
	if t.targets == nil {
		t.targets = make(map[uint64]struct{}, illFailures)
	}
	if len(t.targets) < illAtOnce {
		t.targets[xxhash.Sum64String(j.delivery.GetDevice())] = struct{}{}
	}
}

// general says that it is not a few targets' own. others tells whether deliveries of another run than t.run wait: they have
// to be heard first.
func (t *trouble) general(others bool, now time.Time) bool {
	if others && !t.several {
		return false
	}
	return len(t.targets) >= illAtOnce ||
		t.failures >= illFailures && len(t.targets) > 1 && now.Sub(t.since) >= illAfter
}

// ends forgets it: something has passed.
func (t *trouble) ends() { *t = trouble{targets: t.targets}; clear(t.targets) }
