package listen

import (
	"fmt"
	"syscall"
)

// Descriptors is how many files and connections this process may have open (RLIMIT_NOFILE): its soft limit, which it raises
// to the hard one first.
func Descriptors() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	if limit.Cur < limit.Max {
		raised := syscall.Rlimit{Cur: limit.Max, Max: limit.Max}
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil { // else it is what it was
			limit.Cur = limit.Max
		}
	}
	return int(min(limit.Cur, 1<<30)), nil
}
