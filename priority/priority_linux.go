package priority

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// least is the lowest nice value (sched(7)): a hundredth of the share that others have, but a share.
const least = 19

// Yield has all that shares this process's cores go first, where the kernel weighs processes with each other: those of a
// session, a container, a systemd unit. It gives up a real-time priority that the process was started with, and needs no
// privilege.
func Yield() error {
	return set(&unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: least})
}

// Realtime has this process, and those that it starts from then on, preempt what has no real-time priority (SCHED_RR,
// sched(7)), until back is called; those that it has started keep it. The error is fs.ErrPermission for one that has neither
// CAP_SYS_NICE nor an RLIMIT_RTPRIO.
func Realtime() (back func() error, err error) {
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return nil, fmt.Errorf("sched_getattr: %w", err)
	}
	back = func() error {
		return set(&unix.SchedAttr{Policy: before.Policy, Nice: before.Nice, Priority: before.Priority})
	}
	if err := set(&unix.SchedAttr{Policy: unix.SCHED_RR, Priority: 1}); err != nil {
		return nil, err
	}
	return back, nil
}

// set schedules all threads of this process as attr says.
func set(attr *unix.SchedAttr) error {
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
			if err := unix.SchedSetAttr(id, attr, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("sched_setattr: %w", err)
			}
			done[id] = true
		}
		if len(done) == before {
			return nil
		}
	}
}
