package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// leastPriority is the lowest nice value (setpriority(2)): a hundredth of the share that others have, but a share.
const leastPriority = 19

// yieldCores has all that shares this process's cores go first, where the kernel weighs processes with each other: those of a
// session, a container, a systemd unit. It needs no privilege.
func yieldCores() error {
	// Linux keeps it by thread. New ones have that of the thread that makes them, which may be one that is not done yet: so
	// until nothing is left to do, with time for one that is being made.
	for done := map[int]bool{}; ; time.Sleep(10 * time.Millisecond) {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		before := len(done)
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil || done[id] {
				continue
			}
			// A thread that has ended is no fault.
			if err := syscall.Setpriority(syscall.PRIO_PROCESS, id, leastPriority); err != nil && err != syscall.ESRCH {
				return fmt.Errorf("setpriority: %w", err)
			}
			done[id] = true
		}
		if len(done) == before {
			return nil
		}
	}
}
