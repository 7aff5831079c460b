package priority

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// scheduled checks how all threads of a process are.
func scheduled(t *testing.T, pid int, policy uint32, nice int32) {
	t.Helper()
	threads, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*")
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads: %v, %v", threads, err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(filepath.Base(thread))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := unix.SchedGetAttr(id, 0); err == nil && (got.Policy != policy || got.Nice != nice) {
			t.Errorf("thread %d of %d has policy %d and nice %d, want %d and %d", id, pid, got.Policy, got.Nice, policy, nice)
		}
	}
}

func TestRealtimeIsInheritedAndYielded(t *testing.T) {
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Realtime()
	if errors.Is(err, fs.ErrPermission) {
		scheduled(t, os.Getpid(), before.Policy, before.Nice)
		t.Skip("this user may not: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	scheduled(t, os.Getpid(), unix.SCHED_RR, 0)
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Wait() }() // it is killed
	defer func() { _ = child.Process.Kill() }()
	if err := back(); err != nil {
		t.Fatal(err)
	}
	scheduled(t, os.Getpid(), before.Policy, before.Nice)
	scheduled(t, child.Process.Pid, unix.SCHED_RR, 0)

	if _, err := Realtime(); err != nil {
		t.Fatal(err)
	}
	if err := Yield(); err != nil {
		t.Fatal(err)
	}
	scheduled(t, os.Getpid(), unix.SCHED_NORMAL, least)
}
