package main

import (
	"fmt"

	"github.com/belfry/belfry/listen"
)

// What a process needs descriptors for beside those who call the API: its connections to Kafka, Redis and providers, and on
// the embedded Kafka two files for each partition and as many again for what is read.
const (
	ownDescriptors      = 400
	embeddedDescriptors = 1000
	// fewCallers is the least bound on the API's connections.
	fewCallers = 64
	// manyCallers is the most: each may hold a request's body.
	manyCallers = 8192
)

// connections is how many connections the API may have at a time, so that those who call it leave the descriptors that all
// else needs.
func (a *app) connections() (int, error) {
	limit, err := listen.Descriptors()
	if err != nil {
		return 0, err
	}
	needed := ownDescriptors
	if len(a.cfg.Kafka.Brokers) == 0 {
		needed += embeddedDescriptors
		if limit < embeddedDescriptors {
			return 0, fmt.Errorf("this process may have only %d files and connections open, and the embedded Kafka alone needs %d: raise its limit to %d (ulimit -n, LimitNOFILE)",
				limit, embeddedDescriptors, needed+fewCallers)
		}
	}
	if limit < needed+fewCallers {
		a.log.Warn(fmt.Sprintf("this process may have only %d files and connections open, and may need %d: raise its limit (ulimit -n, LimitNOFILE)",
			limit, needed+fewCallers), "limit", limit, "connections", fewCallers)
	}
	return min(max(limit-needed, fewCallers), manyCallers), nil
}
