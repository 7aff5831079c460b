package senders

import (
	"fmt"
	"slices"
	"testing"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

func waiting(run string, n int) *job {
	return &job{name: run, delivery: &pb.Delivery{Run: run, Device: fmt.Sprint(n)}}
}

func every(*job) bool { return true }

// A small run that comes behind a large one takes turns with it, and each run keeps its order.
func TestRunsTakeTurns(t *testing.T) {
	var q queue
	for i := range 1000 {
		q.push(waiting("large", i))
	}
	for i := range 10 {
		q.push(waiting("small", i))
	}
	next := map[string]int{}
	last := 0
	for i := range 1010 {
		j := q.pop(true, every)
		run := j.delivery.Run
		if want := fmt.Sprint(next[run]); j.delivery.Device != want {
			t.Fatalf("%s: device %s came instead of %s", run, j.delivery.Device, want)
		}
		next[run]++
		if run == "small" {
			last = i
		}
	}
	if last > 20 {
		t.Errorf("the last of 10 came after %d of the others", last)
	}
	if q.len() != 0 || q.pop(true, every) != nil || len(q.runs) != 0 {
		t.Errorf("%d are left", q.len())
	}
}

// Where places are short the run with least in flight is next, and where they are not both take turns.
func TestShortPlacesGoToWhoHasLeast(t *testing.T) {
	for _, plenty := range []bool{false, true} {
		var q queue
		for i := range 20 {
			q.push(waiting("busy", i))
			q.push(waiting("idle", i))
		}
		out := func(i int) *job { // of those that have been taken out
			j := waiting("busy", i)
			j.out = q.outOf(lineOf(j))
			return j
		}
		for i := range 6 {
			q.begins(out(i))
		}
		served := map[string]int{}
		for range 10 {
			j := q.pop(plenty, every)
			q.begins(j)
			served[j.name]++
		}
		want := 8 // then both have as many
		if plenty {
			want = 5
		}
		if served["idle"] != want {
			t.Errorf("plenty %v: %v", plenty, served)
		}
		q.ends(out(0), Verdict{}, true)
		if j := q.pop(false, every); !plenty && j.name != "busy" {
			t.Errorf("%s came, and the other had less", j.name)
		}
	}
}

func TestRunThatMayNotGoHoldsNoOther(t *testing.T) {
	var q queue
	for i := range 3 {
		q.push(waiting("held", i))
		q.push(waiting("free", i))
	}
	free := func(j *job) bool { return j.delivery.Run == "free" }
	for range 3 {
		if j := q.pop(true, free); j == nil || j.delivery.Run != "free" {
			t.Fatalf("got %v", j)
		}
	}
	if q.pop(true, free) != nil || q.len() != 3 {
		t.Error("what may not go went")
	}
	q.pushFront(waiting("held", -1))
	if j := q.pop(true, every); j.delivery.Device != "-1" {
		t.Errorf("device %s came before the first", j.delivery.Device)
	}
}

func TestRemoveTakesOutWhatMatches(t *testing.T) {
	var q queue
	for i := range 10 {
		q.push(waiting(fmt.Sprint("run", i%3), i))
	}
	q.pop(true, every) // device 0
	out := q.remove(func(j *job) bool { return j.delivery.Run == "run1" || j.delivery.Device == "2" })
	var devices []string
	for _, j := range out {
		devices = append(devices, j.delivery.Device)
	}
	slices.Sort(devices)
	if !slices.Equal(devices, []string{"1", "2", "4", "7"}) || q.len() != 5 {
		t.Errorf("took out %v, %d are left", devices, q.len())
	}
	for n := q.len(); n > 0; n-- {
		if q.pop(true, every) == nil {
			t.Fatal("lost one")
		}
	}
	if q.oldest() != nil {
		t.Error("an empty queue has an oldest")
	}
}
