package e2e

import (
	"testing"
	"time"

	"github.com/belfry/belfry/simulator"
	"github.com/belfry/belfry/stream"
)

// hold has the providers of a platform, or of all with "", take what comes and keep their answers, and waits until one does:
// from then on requests are in flight, however fast anything is. Whoever has killed their sender calls the function
// returned: it waits until the providers have noticed that nobody waits for the answers, and counts the requests cut off.
func (w *world) hold(platform string) (cut func() int64) {
	w.t.Helper()
	unanswered := func() (n int64) {
		for of, answers := range w.receipts().ByStatus {
			if platform == "" || of == platform {
				n += answers["0"]
			}
		}
		return n
	}
	before := unanswered()
	w.fault("hold", simulator.Fault{Kind: simulator.Stall, Platform: platform, AfterAccepting: true})
	until(w.t, "a request is in flight", func() bool { return w.struck("hold") > 0 })
	return func() (n int64) {
		w.t.Helper()
		until(w.t, "the providers notice that their client is gone", func() bool {
			held := w.struck("hold")
			n = unanswered() - before
			return n >= held
		})
		w.lift("hold")
		return n
	}
}

// steady paces a campaign, so that a test on a busy machine still finds it where it looks for it: many are in flight, and it is over
// only seconds later.
const steady = `, "pace": {"per_second": 1000}`

// What may be sent twice after a kill is what a provider had accepted and no committed transaction knew of: in flight, or
// done since the last commit. That number is read off Kafka as the killed process left it, so the bound is exact.
func TestKillAll(t *testing.T) {
	t.Parallel()
	const devices = 8000
	w := newWorld(t, options{devices: devices, gone: 0.02})
	w.start()
	w.register("demo")
	w.slow(400 * time.Millisecond)
	w.campaign("demo", everyone("c1", steady))

	var mayRepeat int64
	for _, at := range []int64{devices / 8, devices / 2} {
		until(t, "a part of the campaign is accepted", func() bool { return w.receipts().Distinct >= at })
		cut := w.hold("")
		w.serve.kill()
		n := cut()
		var known int64
		w.onKafkaAsItLies(func(k *stream.Kafka) { known = acceptedOnKafka(t, k, "apns", "fcm", "webpush") })
		sum := w.receipts()
		t.Logf("killed when %d were accepted, of which %d committed; %d requests were cut off", sum.Distinct, known, n)
		if at == devices/2 && known < at/2 {
			t.Errorf("when %d were accepted only %d were committed: commits are too rare", at, known)
		}
		mayRepeat += sum.Distinct - known
		w.start()
	}
	w.lift("slow")
	p := w.ended("demo", "c1")
	w.balanced(p)
	w.notRepeated(mayRepeat, p)
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
	w.campaign("demo", everyone("c1", steady))
	for _, at := range []int64{devices / 10, devices * 3 / 10, devices * 6 / 10} {
		until(t, "a part of the campaign is accepted", func() bool { return w.receipts().Distinct >= at })
		w.serve.stop()
		if sum := w.receipts(); sum.Distinct == devices {
			t.Fatal("the campaign was over at the stop")
		}
		w.start()
	}
	w.lift("slow")
	p := w.ended("demo", "c1")
	w.balanced(p)
	w.notRepeated(0, p)
	w.serve.stop()
}
