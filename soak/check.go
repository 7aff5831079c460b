package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/audit"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/simulator"
)

// evidence is all that a run left behind: what Kafka holds, and the providers' receipts with their times.
type evidence struct {
	count    *audit.Count
	reports  []*audit.Report
	receipts map[[16]byte][]time.Time
	// words are the results of each delivery, in the order in which they were committed.
	words map[[16]byte][]word
	// platform and campaign say whose a delivery is.
	platform map[[16]byte]string
	run      map[[16]byte]string
	sent     map[[16]byte]int
	// early came back from a retry topic before they were due, by the clock of the process that brought them back, and
	// earliest is by how much. hasty were accepted again earlier than its clock can be ahead.
	early, hasty int
	earliest     time.Duration
	due          map[[16]byte]time.Time // last, of what came back when it was due
	raw          map[string]int
	replayed     *replayed
}

// word is one result.
type word struct {
	at      time.Time // when its record was seen committed: its own time is by a clock that is off
	outcome pb.Outcome
}

func gather(ctx context.Context, w *world, seen *watch) (*evidence, error) {
	e := &evidence{
		receipts: map[[16]byte][]time.Time{}, words: map[[16]byte][]word{}, platform: map[[16]byte]string{},
		run: map[[16]byte]string{}, sent: map[[16]byte]int{}, raw: map[string]int{},
		due: map[[16]byte]time.Time{}, replayed: newReplayed(),
	}
	var err error
	if e.count, err = audit.Read(ctx, w.cluster(), time.Time{}, func(audit.Run) bool { return true }); err != nil {
		return nil, err
	}
	if err := e.readReceipts(w); err != nil {
		return nil, err
	}
	times := make(map[[16]byte]int, len(e.receipts))
	for id, all := range e.receipts {
		times[id] = len(all)
	}
	for _, r := range e.count.Runs() {
		e.reports = append(e.reports, e.count.Report(r, times))
	}
	for _, p := range schemas.Platforms {
		if err := e.readPlatform(ctx, w, p, seen); err != nil {
			return nil, err
		}
	}
	for id, due := range e.due {
		if e.tooSoon(id, due) {
			e.hasty++
		}
	}
	return e, nil
}

// tooSoon tells that a provider had a delivery again before it was due, by more than a role's clock is off. What was
// accepted in the end was so after it came back for the last time.
func (e *evidence) tooSoon(id [16]byte, due time.Time) bool {
	words, got := e.words[id], e.receipts[id]
	if len(words) == 0 || len(got) == 0 || words[len(words)-1].outcome != pb.Outcome_OUTCOME_ACCEPTED {
		return false
	}
	return slices.MaxFunc(got, time.Time.Compare).Before(due.Add(-mostSkew))
}

// sentTwice counts the deliveries of campaigns that were sent out more often than once, and once for each replay.
func (e *evidence) sentTwice() (n int) {
	again := e.replayed.again()
	for id, sent := range e.sent {
		if e.ofCampaign(id) && sent > 1+again[id] {
			n++
		}
	}
	return n
}

// ofCampaign tells that a delivery is a campaign's, and not a call's, which may be written twice.
func (e *evidence) ofCampaign(id [16]byte) bool { return !strings.HasPrefix(e.run[id], "~") }

// readReceipts reads the simulator's file, after asking it something that makes it write what it has.
func (e *evidence) readReceipts(w *world) error {
	if _, err := w.receipts(); err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(w.dir, "receipts.ndjson"))
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var r struct {
			ID   string
			Time int64
		}
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("receipts: %w", err)
		}
		if id, ok := simulator.ParseID(r.ID); ok {
			e.receipts[id] = append(e.receipts[id], time.UnixMilli(r.Time))
		}
	}
	return lines.Err()
}

func (e *evidence) readPlatform(ctx context.Context, w *world, p pb.Platform, seen *watch) (err error) {
	name := schemas.PlatformName(p)
	read := func(topic string, each func(*kgo.Record)) {
		if err == nil {
			err = audit.Scan(ctx, w.cluster(), topic, time.Time{}, each)
		}
	}
	read(schemas.TopicResults(p), func(r *kgo.Record) {
		var batch pb.ResultBatch
		if proto.Unmarshal(r.Value, &batch) != nil {
			return // the audit has counted it
		}
		for _, one := range batch.Results {
			id := [16]byte(one.Delivery)
			e.words[id] = append(e.words[id], word{seen.committed(p, r), one.Outcome})
		}
	})
	for _, class := range schemas.Classes {
		read(schemas.TopicSend(p, class), func(r *kgo.Record) {
			var d pb.Delivery
			if proto.Unmarshal(r.Value, &d) != nil {
				return
			}
			id := [16]byte(d.Id)
			e.platform[id], e.run[id] = name, d.Run
			if d.DueAt == 0 && d.Attempt == 0 {
				e.sent[id]++
			}
			if d.DueAt == 0 || d.Parked {
				return // what was parked for its destination's sake comes back as soon as that is well
			}
			due := time.UnixMilli(d.DueAt)
			if d.EarlyAt > 0 {
				due = time.UnixMilli(d.EarlyAt) // others that failed as it did were seen to pass
			}
			if due.After(e.due[id]) {
				e.due[id] = due
			}
			if early := due.Sub(r.Timestamp); early > 0 {
				e.early++
				e.earliest = max(e.earliest, early)
			}
		})
	}
	read(schemas.TopicDead(p), func(r *kgo.Record) {
		var l pb.DeadLetter
		switch {
		case proto.Unmarshal(r.Value, &l) != nil:
		case l.Delivery == nil:
			e.raw[fmt.Sprint(l.Source.GetTopic(), "/", l.Source.GetPartition(), "/", l.Source.GetOffset())]++
		default:
			e.replayed.letters[letter{schemas.TopicDead(p), r.Partition, r.Offset}] = [16]byte(l.Delivery.Id)
		}
	})
	read(schemas.TopicReplays(p), func(r *kgo.Record) {
		if err == nil {
			err = e.replayed.step(name, r)
		}
	})
	return err
}

// sums adds all runs up.
type sums struct {
	planned, accepted, expired, cancelled, dead, otherwise uint64
	deferred                                               uint64
	pending                                                int64
	notEnded, endedTwice, missing, unheard                 int
	retries, delivered, repeats                            int
	differences                                            []string
}

func (e *evidence) sums() (s sums) {
	for _, r := range e.reports {
		for _, d := range r.Differences {
			s.differences = append(s.differences, r.Run+": "+d)
		}
		for _, p := range r.Platforms {
			t := p.Topics
			s.planned += t.Planned
			s.accepted += t.Accepted
			s.expired += t.Expired
			s.cancelled += t.Cancelled
			s.dead += t.Dead
			s.otherwise += t.Unregistered + t.Rejected
			s.deferred += t.Deferred
			s.pending += t.Pending
			s.notEnded += p.NotEnded
			s.endedTwice += p.EndedTwice
			s.retries += p.Retries
			if p.Received != nil {
				s.missing += p.Received.Missing
				s.unheard += p.Received.Unheard
				s.delivered += p.Received.Deliveries
				s.repeats += p.Received.Repeats
			}
		}
	}
	return s
}

// settled tells that nothing is on its way any more.
func (e *evidence) settled() bool {
	return !slices.ContainsFunc(e.reports, func(r *audit.Report) bool { return !r.Settled })
}

// grace is how much later than an event a request may still be answered that was out when it began, and how much clocks,
// which are one here, may disagree in what they stamp first.
const grace = sendersTimeout + time.Second

// repeats compares each delivery's receipts with what may be repeated. An event may repeat what was in flight then or done
// and not yet committed: what had a receipt by then, and got its word, if ever, only afterwards. An answer that a provider
// gave and Belfry did not hear is repeated after its "deferred". A call to the API that is repeated may be written twice.
//
// bound is how many repeats there may be of all: for each event the most that were in flight or uncommitted at any one
// moment of it, for a process or a group's membership is lost at a moment, and what was unheard or called for twice.
func (e *evidence) repeats(events []event) (repeats, bound int, unexplained []string) {
	for id, got := range e.receipts {
		slices.SortFunc(got, time.Time.Compare)
		words := e.words[id]
		allowed := max(0, e.sent[id]-1)
		for _, w := range words {
			if w.outcome == pb.Outcome_OUTCOME_DEFERRED {
				allowed++
			}
		}
		bound += allowed
		n := len(got) - 1
		if repeats += n; n <= allowed {
			continue
		}
		for _, v := range events {
			if exposes(v, events) && v.touches(e.platform[id]) && v.start.Before(got[n]) && exposed(got[0], words, v) {
				allowed++
			}
		}
		if n > allowed && len(unexplained) < 5 {
			unexplained = append(unexplained, e.story(id))
		}
	}
	risks := e.risks()
	for _, v := range events {
		for platform, all := range risks {
			if exposes(v, events) && v.touches(platform) {
				bound += most(all, v)
			}
		}
	}
	return repeats, bound, unexplained
}

// risk is a time in which a provider had a delivery and Kafka did not have that committed.
type risk struct{ from, to time.Time }

// risks are all there were, by platform.
func (e *evidence) risks() map[string][]risk {
	all := map[string][]risk{}
	for id, got := range e.receipts {
		var last risk
		for _, t := range got {
			if t.Before(last.to) {
				continue // it is a repeat
			}
			last = risk{t, t.Add(time.Hour)} // for ever
			for _, w := range e.words[id] {
				if w.at.After(t) {
					last.to = w.at.Add(commitTime)
					break
				}
			}
			all[e.platform[id]] = append(all[e.platform[id]], last)
		}
	}
	return all
}

// most is how many risks there were at any one moment of an event, at most.
func most(risks []risk, v event) (most int) {
	from, to := v.lasts()
	var edges []time.Duration // since from, twice as much, and odd where a risk ends
	for _, r := range risks {
		if r.from.After(to) || r.to.Before(from) {
			continue
		}
		edges = append(edges, max(0, r.from.Sub(from))*2, max(0, r.to.Sub(from))*2+1)
	}
	slices.Sort(edges)
	now := 0
	for _, edge := range edges {
		if edge%2 == 0 {
			now++
			most = max(most, now)
		} else {
			now--
		}
	}
	return most
}

// exposes tells whether a lane may lose by an event what it had in flight. A stop in good order may not, but for answers
// that a sick provider or network keeps for longer than a stop waits.
func exposes(v event, all []event) bool {
	if !v.senders {
		return false
	}
	if v.kind != "SIGTERM" && v.kind != "wrong file" {
		return true
	}
	return slices.ContainsFunc(all, func(o event) bool {
		return (o.provider || o.platform == "") && o.touches(v.platform) && o.start.Before(v.end.Add(grace)) && o.end.After(v.start.Add(-grace))
	})
}

// lasts is the time in which an event may lose what is in flight. Where the moment is known at which a process died, what
// it had sent by then was on its way for a little longer.
func (v *event) lasts() (from, to time.Time) {
	if !v.moment.IsZero() {
		return v.moment, v.moment.Add(time.Second)
	}
	return v.start, v.end.Add(rebalanceTime + grace)
}

// exposed tells whether a delivery with a first receipt then, and these results, may have been lost by an event's process
// or commit.
func exposed(first time.Time, words []word, v event) bool {
	from, to := v.lasts()
	if first.After(to) {
		return false
	}
	// The last result is the one of the last time that it was sent.
	return len(words) == 0 || words[len(words)-1].at.After(from.Add(-commitTime))
}

// rebalanceTime is how long a group may take to come to rest after members or brokers were away: a session's timeout.
const rebalanceTime = 12 * time.Second

// commitTime is how long a commit may be under way, in which its records have been written and do not count yet.
const commitTime = time.Second

// story tells what is known of one delivery.
func (e *evidence) story(id [16]byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s of %s on %s, sent %d times: receipts", simulator.ID(id), e.run[id], e.platform[id], e.sent[id])
	for _, t := range e.receipts[id] {
		b.WriteString(" " + t.Format("15:04:05.000"))
	}
	b.WriteString("; results")
	for _, w := range e.words[id] {
		fmt.Fprintf(&b, " %s %s", w.at.Format("15:04:05.000"), strings.ToLower(strings.TrimPrefix(w.outcome.String(), "OUTCOME_")))
	}
	return b.String()
}

// afterCancel counts the receipts of cancelled campaigns later than 2 s after the acknowledgement, and what the machine
// withheld since. Where a lane's processes, its way to Kafka or its provider were struck meanwhile they are counted apart: a
// lane that cannot see Kafka sends on what it holds, and what a provider held up it may accept late.
func (e *evidence) afterCancel(l *load, events []event, s *starved) (late, shaded int) {
	for id, got := range e.receipts {
		c := l.campaigns[e.run[id]]
		if c == nil || c.cancelled.IsZero() {
			continue
		}
		for _, t := range got {
			if t.Sub(c.cancelled) <= 2*time.Second+s.during(c.cancelled, t) {
				continue
			}
			if slices.ContainsFunc(events, func(v event) bool {
				return v.touches(e.platform[id]) && v.start.Before(t) && v.end.Add(rebalanceTime).After(c.asked)
			}) {
				shaded++
			} else {
				late++
			}
		}
	}
	return late, shaded
}
