package e2e

import (
	"testing"
	"time"

	"github.com/belfry/belfry/simulator"
	"github.com/belfry/belfry/stream"
)

// cutOff counts the requests that the providers could not answer, for their client was gone.
func cutOff(s simulator.Summary) (n int64) {
	for _, answers := range s.ByStatus {
		n += answers["0"]
	}
	return n
}

// What may be sent twice after a kill is what a provider had accepted and no committed transaction knew of: in flight, or
// done since the last commit. That number is read off Kafka as the killed process left it, so the bound is exact.
func TestKillAll(t *testing.T) {
	t.Parallel()
	const devices = 8000
	w := newWorld(t, options{devices: devices, gone: 0.02})
	w.start()
	w.register("demo")
	w.slow(400 * time.Millisecond)
	w.campaign("demo", everyone("c1"))

	var mayRepeat, cut int64
	for _, at := range []int64{devices / 8, devices / 2} {
		until(t, "a part of the campaign is accepted", func() bool { return w.receipts().Distinct >= at })
		w.serve.kill()
		var known int64
		w.onKafkaAsItLies(func(k *stream.Kafka) { known = acceptedOnKafka(t, k, "apns", "fcm", "webpush") })
		sum := w.receipts()
		if n := cutOff(sum); n <= cut {
			t.Fatalf("no request was in flight at the kill: %+v", sum)
		} else {
			cut = n
		}
		t.Logf("killed when %d were accepted, of which %d committed; %d requests were cut off in all", sum.Distinct, known, cut)
		if sum.Distinct > devices*9/10 {
			t.Fatalf("the campaign was nearly over at the kill: %d accepted", sum.Distinct)
		}
		if at == devices/2 && known < sum.Distinct/2 {
			t.Errorf("of %d accepted only %d were committed: commits are too rare", sum.Distinct, known)
		}
		mayRepeat += sum.Distinct - known
		w.start()
	}
	w.lift("slow")
	w.balanced(w.ended("demo", "c1"))
	if sum := w.receipts(); sum.Repeats > mayRepeat {
		t.Errorf("%d repeats, and only %d were in flight or done since the last commit at the kills", sum.Repeats, mayRepeat)
	}
	w.serve.stop()
}

// A stop in good order loses nothing and repeats nothing.
func TestRestartInGoodOrder(t *testing.T) {
	t.Parallel()
	const devices = 6000
	w := newWorld(t, options{devices: devices})
	w.start()
	w.register("demo")
	w.slow(300 * time.Millisecond)
	w.campaign("demo", everyone("c1"))
	for _, at := range []int64{devices / 10, devices * 3 / 10, devices * 6 / 10} {
		until(t, "a part of the campaign is accepted", func() bool { return w.receipts().Distinct >= at })
		w.serve.stop()
		if sum := w.receipts(); sum.Distinct == devices {
			t.Fatal("the campaign was over at the stop")
		}
		w.start()
	}
	w.lift("slow")
	w.balanced(w.ended("demo", "c1"))
	if sum := w.receipts(); sum.Repeats != 0 || sum.Distinct != devices {
		t.Errorf("%d devices reached of %d, %d repeats", sum.Distinct, devices, sum.Repeats)
	}
	w.serve.stop()
}
