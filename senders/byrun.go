package senders

import "strings"

// runsApart are the most runs that are told apart where something is counted by run. Those beyond them are counted as one.
const runsApart = 128

// byRun counts by run. Its owner locks.
type byRun struct{ of map[string]int }

// name is that under which a run is counted.
func (c *byRun) name(run string) string {
	if c.has(run) || len(c.of) < runsApart {
		return run
	}
	return ""
}

func (c *byRun) has(run string) bool {
	_, ok := c.of[run]
	return ok
}

func (c *byRun) get(run string) int { return c.of[c.name(run)] }

func (c *byRun) set(run string, n int) {
	if c.of == nil {
		c.of = map[string]int{}
	}
	c.of[strings.Clone(c.name(run))] = n // it may lie in a record
}
