package fanout

import (
	"math"
	"testing"
	"time"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// deliver simulates a campaign that always has a chunk waiting, and tells how many deliveries went out by each second.
func deliver(p *pacer, c *pb.Campaign, chunk float64, seconds int) []float64 {
	total := make([]float64, seconds+1)
	for ms := 0; ms < seconds*1000; ms += 20 {
		now := epoch.Add(time.Duration(ms) * time.Millisecond)
		second := ms/1000 + 1
		total[second] = max(total[second], total[second-1])
		if p.ready(c, chunk, now) {
			p.pay(c, chunk, now)
			total[second] += chunk
		}
	}
	return total
}

func paced(perSecond float64) *pb.Campaign {
	c := inState(pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	c.Pace = &pb.Pace{PerSecond: perSecond}
	return c
}

func TestPaceRampsUpAndKeepsItsRate(t *testing.T) {
	for _, test := range []struct{ rate, share, chunk float64 }{
		{1000, 1, 1000}, {1000, 1.0 / 3, 1000}, {30, 1, 100}, {0.5, 1, 100},
	} {
		p := &pacer{share: func() float64 { return test.share }, buckets: map[string]*bucket{}}
		total := deliver(p, paced(test.rate), test.chunk, 1200)
		for s, n := range total {
			earned := test.rate * test.share * ramped(time.Duration(s)*time.Second)
			if n > earned+test.chunk {
				t.Fatalf("rate %v: %v went out in the first %d s, %v were earned", test.rate, n, s, earned)
			}
		}
		if end, earned := total[1200], test.rate*test.share*1170; math.Abs(end-earned) > test.chunk+test.rate {
			t.Errorf("rate %v: %v in 20 minutes, want %v", test.rate, end, earned)
		}
	}
}

func TestPaceGivesBackWhatTheFilterLeftOut(t *testing.T) {
	p := &pacer{share: func() float64 { return 1 }, buckets: map[string]*bucket{}}
	c := paced(100)
	c.LaunchedAt = epoch.Add(-time.Hour).UnixMilli()
	p.ready(c, 100, epoch)
	now := epoch.Add(time.Second)
	if !p.ready(c, 100, now) {
		t.Fatal("a second's tokens do not suffice for a second's chunk")
	}
	p.pay(c, 100, now)
	if p.ready(c, 100, now) {
		t.Error("a second chunk goes out at once")
	}
	p.pay(c, -100, now)
	if !p.ready(c, 100, now) {
		t.Error("what was not sent was not given back")
	}
}

func TestNoPaceIsNoLimit(t *testing.T) {
	p := &pacer{buckets: map[string]*bucket{}}
	if c := paced(0); !p.ready(c, 1e9, epoch) {
		t.Error("held back")
	}
}
