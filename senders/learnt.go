package senders

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
)

// learnt is the rate that a destination's service keeps an app to without naming it: Chrome's takes 1,000 messages a minute
// from a site that pushes much and is visited little, for days, and says 429 to the rest (January 2026). Fewer at a time is no
// cure for that: one request after the other is more.
//
// The same 429 may be one target's own, and then a rate would only starve the others. So a rate is tried, and what was refused
// before and under it is compared: where it was the rate, hardly any is left; where it was the targets, as many as before. Even a
// trial holds the others up. So what a campaign says of which nothing passes while others' does is its own: a rate would hit all.
// Hardly any is left, too, where it was neither, and is over: so it is proven by raising it until many are refused again.
//
//	             many say it is too much                 hardly any says so now                 raised, many do
//	┌──────┐ ──────────────────────────▶ ┌───────┐ ──────────────────────────▶ ┌───────┐ ───────────────────▶ ┌──────┐ ─┐ some do: a little less,
//	│ FREE │                             │ TRIAL │                             │ PROOF │                      │ KEPT │  │ none do, and it is used
//	└──────┘ ◀────────────────────────── └───────┘                             └───────┘                      └──────┘ ◀┘ up: a little more
//	    ▲        as many as before                        for a minute none does   │        many do again         │
//	    └──────────────────────────────────────────────────────────────────────────┴── it has held nobody back ───┘
//	                                                                                   for forgetAfter
//
// It is of one process; both lanes of a platform go by it. Safe for concurrent use.
type learnt struct {
	// pace is the rate, requests a second, a float64's bits. 0: none.
	pace atomic.Uint64

	mu    sync.Mutex // guards all below
	state learning
	// seconds are what became of the last requests, by the Unix second: of more than the minute that a service may count over.
	seconds [90]second
	// targets are hashes of those that were limited since the last trial, enoughTargets at most.
	targets map[uint64]struct{}
	streaks streaks
	// by is what it was found by and since when, began when the trial or the step of the proof did. rounds counts the trial's
	// corrections.
	by           finding
	since, began time.Time
	rounds       int
	// shares are what was limited before the trial, of each kin. Of those asked since it began limited were, answers in all;
	// expected would have been at those shares. odds say how much likelier it is that the rate is the reason: see judge.
	shares                  [2]float64
	answers                 int
	limited, expected, odds float64
	// immune is until when nothing is tried, after a trial for nothing; each such doubles the time.
	immune    time.Time
	immuneFor time.Duration
	// changed is when the rate was moved last, downs how often in a row it was moved down, bothered when it held a request back
	// or was exceeded last.
	changed, bothered time.Time
	downs             int
	// step is by how much it goes up next, and safe the last rate from which it went up, or is raised for proof.
	step, safe float64
	// opened is when the destination was opened last after it took nothing for a while.
	opened time.Time
}

// second is what became of the requests of a second.
type second struct {
	at    int64
	tries [2]tries
}

// tries are what became of deliveries that had not been asked before, or that had: see kin. Who was limited before likely is again,
// for his own sake, and of those there are more or fewer for reasons that have nothing to do with the rate.
type tries struct{ passed, limited float64 }

func kin(again bool) int {
	if again {
		return 1
	}
	return 0
}

func sum(of [2]tries) tries { return tries{of[0].passed + of[1].passed, of[0].limited + of[1].limited} }

func (t tries) all() float64 { return t.passed + t.limited }

// share is the part that was limited.
func (t tries) share() float64 { return t.limited / max(1, t.all()) }

// finding is how it shows that it is too much.
type finding struct {
	// most is how long a trial may take, and counts how much more than the rate allows refutes it at once, as the time in which it
	// would allow that.
	most, counts time.Duration
}

var (
	// partly is that some pass while others do not: such a service does not save up for long.
	partly = finding{trialMost, 2 * lookBack * time.Second}
	// byTurns is that it is shut again and again. It counts over a minute at most.
	byTurns = finding{cycleMost, 2 * quietAfter}
)

type learning uint8

const (
	free learning = iota
	trial
	proof
	kept
)

const (
	// lookBack is over how many seconds the pace is taken where some pass and some do not.
	lookBack = 5
	// enoughTargets say that it is too much before it is looked into, and no less than enoughShare of the answers: of less, all
	// go by being put off.
	enoughTargets = 20
	enoughShare   = 0.3
	// worthPace is the least rate that is looked for, a second, and leastPace the least that there is: a trial at less would take
	// too long, and what is slower can be set by hand.
	worthPace, leastPace = 10, 0.1
	// A trial takes answers, trialAnswers at least, until it is e^sureOdds times as likely that no more than curedShare of those
	// are limited which would have been before, as that all of them are: then it has shown that it is the rate. Or until the other
	// is e^doubtOdds times as likely, which costs less where it is wrong: then it is tried lower if less than hopeShare were
	// limited. One that has not come to its end by trialMost has shown nothing, and is not worth what it costs the others; it may
	// be tried again after quietAfter. Where it has been shut again and again it may take cycleMost: so much is known.
	// What is asked before settle is over meets what was asked before it began. Where less than allLimited were limited before
	// and now all are, it is no sign of either.
	trialAnswers = 8
	sureOdds     = 9
	doubtOdds    = 4
	trialMost    = 5 * time.Second
	cycleMost    = 15 * time.Second
	settle       = time.Second
	allLimited   = 0.9
	mostShare    = 0.99 // none is so sure that one that passes settles it
	curedShare   = 0.4
	hopeShare    = 0.6
	trialRounds  = 4
	// In a proof the rate is raised proofStep times each settle: what a service had saved up meanwhile is gone soon. It is proven when
	// enoughTargets of a step are limited, and enoughShare of it. The longest that a service counts over is quietAfter: then it is none.
	proofStep, proofMost = 4, 1e6
	// immuneFirst and immuneMost bound the time in which nothing is tried.
	immuneFirst, immuneMost = 10 * time.Minute, 3 * time.Hour
	// The rate moves by paceStep down each paceEvery in which something was limited, and up each quietAfter in which nothing was
	// and the rate held something back: that is the longest that a service counts over. Up it goes by twice as much each time,
	// to stepMost: a service that has changed its mind is believed before long. If that was too much, it is where it was before.
	// Where stillLimited of the answers say that it is too much after downsMost times down in a row, it was not the rate, or is
	// another: else it could only fall.
	paceEvery    = 10 * time.Second
	quietAfter   = time.Minute
	paceStep     = 0.05
	stepMost     = 1.0
	downsMost    = 2
	stillLimited = 0.1
	cycleSpare   = 0.1
	forgetAfter  = 15 * time.Minute
)

// rate is requests a second, or 0.
func (l *learnt) rate() float64 { return math.Float64frombits(l.pace.Load()) }

// shown is what an operator sees: requests a minute, and since when; 0 while none is kept.
func (l *learnt) shown() (perMinute float64, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != kept {
		return 0, time.Time{}
	}
	return l.rate() * 60, l.since
}

// took notes a request of a run that was not limited; again says that its delivery had been asked before.
func (l *learnt) took(run string, again bool, begun, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.streaks.passed(run)
	l.second(now).tries[kin(again)].passed++
	l.judge(again, false, begun, now)
}

// refused notes one that was. It says whether the rate may be the reason: then it is no attempt of the delivery's.
func (l *learnt) refused(run, device string, again bool, begun, now time.Time) (ours bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streaks.limited(run, again, now) {
		return false
	}
	l.second(now).tries[kin(again)].limited++
	if l.targets == nil {
		l.targets = map[uint64]struct{}{}
	}
	if len(l.targets) < enoughTargets {
		l.targets[xxhash.Sum64String(device)] = struct{}{}
	}
	l.bothered = now
	l.judge(again, true, begun, now)
	l.suspect(now)
	return l.state != free
}

func (l *learnt) second(now time.Time) *second {
	s := &l.seconds[now.Unix()%int64(len(l.seconds))]
	if s.at != now.Unix() {
		*s = second{at: now.Unix()}
	}
	return s
}

// over adds up the last n seconds, this one included: in all, and of each kin.
func (l *learnt) over(n int64, now time.Time) (all tries, of [2]tries) {
	for i := range l.seconds {
		s := &l.seconds[i]
		if s.at <= now.Unix()-n || s.at > now.Unix() {
			continue
		}
		for k := range of {
			of[k].passed += s.tries[k].passed
			of[k].limited += s.tries[k].limited
		}
	}
	return sum(of), of
}

// suspect begins a trial where many of the last seconds' requests were limited and some were not.
func (l *learnt) suspect(now time.Time) {
	if l.state != free || now.Before(l.immune) || len(l.targets) < enoughTargets {
		return
	}
	lately, of := l.over(lookBack, now)
	longer, _ := l.over(2*lookBack, now)
	if just, _ := l.over(2, now); just.passed == 0 || longer.passed == lately.passed {
		return // nothing passes: then see reopened; or it has not gone on for long enough
	}
	of = l.streaks.without(of, now)
	if lately = sum(of); lately.limited >= enoughTargets {
		l.try(lately.passed/lookBack, lately.share(), of, partly, now)
	}
}

// reopened notes that the destination takes something again after it has taken nothing since shut. Where that came of being
// asked too much, and again and again, it takes so much in a minute, and is shut for the rest of it. Once is an outage: no trial can
// tell, for when it is over nothing is limited at any rate.
func (l *learnt) reopened(limited bool, shut, now time.Time) {
	if !limited || now.Sub(shut) < lookBack*time.Second {
		return // else see suspect
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	from := l.opened.Unix()
	l.opened = now
	if l.state == trial || l.state == proof || now.Before(l.immune) || len(l.targets) < enoughTargets || now.Unix()-from >= int64(len(l.seconds)) {
		return
	}
	if l.state == kept && l.since.Unix() >= from {
		return // its proof is what shut it
	}
	cycle, of := l.over(now.Unix()-from+1, now)
	if cycle.passed < enoughTargets {
		return
	}
	// A little less: as many as it opens for have gone at once, of what it takes until it is shut next.
	l.try((1-cycleSpare)*cycle.passed/float64(now.Unix()-from+1), cycle.share(), of, byTurns, now)
}

// try begins a trial of a rate, if it is worth one. share is what was limited, and of the same by kin.
func (l *learnt) try(rate, share float64, of [2]tries, by finding, now time.Time) {
	if share < enoughShare || rate < worthPace {
		return
	}
	l.state, l.rounds, l.downs, l.step, l.safe, l.by = trial, 0, 0, paceStep, 0, by
	for k := range of {
		l.shares[k] = share
		if of[k].all() >= enoughTargets {
			l.shares[k] = of[k].share()
		}
		l.shares[k] = min(l.shares[k], mostShare)
	}
	l.begin(rate, now)
}

func (l *learnt) begin(rate float64, now time.Time) {
	l.set(rate)
	l.began, l.answers, l.limited, l.expected, l.odds = now, 0, 0, 0, 0
	clear(l.targets)
}

func (l *learnt) set(rate float64) { l.pace.Store(math.Float64bits(max(rate, leastPace))) }

// lift lets everything go again.
func (l *learnt) lift() {
	l.state = free
	l.pace.Store(0)
}

// judge counts an answer to the trial, and ends it when they tell enough: Wald's sequential test of whether as many are limited
// as before or no more than curedShare of that (Sequential Tests of Statistical Hypotheses, 1945).
func (l *learnt) judge(again, limited bool, begun, now time.Time) {
	switch {
	case l.state == proof && begun.After(l.since):
		l.prove(limited, now)
		return
	case l.state != trial || begun.Sub(l.began) < settle:
		return
	}
	share := l.shares[kin(again)]
	l.answers++
	l.expected += share
	if limited {
		l.limited++
		l.odds += math.Log(curedShare)
	} else {
		l.odds += math.Log((1 - curedShare*share) / (1 - share))
	}
	switch {
	case l.answers < trialAnswers || -doubtOdds < l.odds && l.odds < sureOdds:
	case l.odds >= sureOdds:
		l.state, l.since, l.safe = proof, now, l.rate()
		l.immuneFor = 0
		l.begin(l.safe, now)
	case l.limited <= hopeShare*l.expected && l.rounds < trialRounds:
		l.rounds++
		l.begin(l.rate()*(1-l.limited/float64(l.answers)), now)
	case l.limited == float64(l.answers) && l.expected < allLimited*l.limited:
		l.lift() // it is shut just now, and when it opens that tells more: see reopened
	default:
		l.lift()
		l.immuneFor = min(max(2*l.immuneFor, immuneFirst), immuneMost)
		l.immune = now.Add(l.immuneFor)
	}
}

// prove counts an answer to the raised rate.
func (l *learnt) prove(limited bool, now time.Time) {
	l.answers++
	if limited {
		l.limited++
	}
	if l.limited >= enoughTargets && l.limited >= enoughShare*float64(l.answers) {
		l.state, l.changed, l.bothered = kept, now, now
		l.set(l.safe)
		l.safe = 0
	}
}

// tend moves a rate that is tried or kept. starved says that it holds something back just now.
func (l *learnt) tend(starved bool, now time.Time) {
	if l.pace.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if starved {
		l.bothered = now
	}
	switch {
	case l.state == trial && now.Sub(l.began) > l.by.most:
		l.lift()
		if l.limited < float64(l.answers) { // else it is shut just now
			l.immune = now.Add(quietAfter)
		}
	case l.state == proof:
		l.raise(now)
	case l.state == kept && now.Sub(l.bothered) > forgetAfter:
		l.lift()
	case l.state == kept && now.Sub(l.changed) >= paceEvery:
		l.move(starved, now)
	}
}

// raise goes on with the proof, or ends it where that did not come.
func (l *learnt) raise(now time.Time) {
	lasts := now.Sub(l.since)
	since, _ := l.over(int64(lasts/time.Second), now)
	switch {
	case lasts >= quietAfter, since.passed > l.safe*(lasts+l.by.counts).Seconds():
		l.lift()
	case now.Sub(l.began) >= settle:
		l.begin(min(proofStep*l.rate(), proofMost), now)
	}
}

func (l *learnt) move(starved bool, now time.Time) {
	lately, _ := l.over(int64(paceEvery/time.Second), now)
	minute, _ := l.over(int64(quietAfter/time.Second), now)
	if lately.limited == 0 {
		l.downs = 0
	}
	switch {
	case lately.passed == 0:
		return // it is shut, or nothing is asked: neither tells of the rate
	case l.downs >= downsMost && lately.share() > stillLimited:
		l.lift()
		return
	case lately.limited > 0 && l.safe > 0:
		l.set(l.safe)
		l.safe, l.step = 0, paceStep
	case lately.limited > 0:
		l.downs++
		l.set(l.rate() * (1 - paceStep))
	case minute.limited == 0 && starved && now.Sub(l.changed) >= quietAfter:
		l.safe = l.rate()
		l.set(l.safe * (1 + l.step))
		l.step = min(2*l.step, stepMost)
	default:
		return
	}
	l.changed = now
}
