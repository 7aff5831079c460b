package audit

import (
	"fmt"
	"strings"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Figures are the books of a run on a platform, from one source.
type Figures struct {
	Planned        uint64 `json:"planned"`
	Accepted       uint64 `json:"accepted"`
	Unregistered   uint64 `json:"unregistered"`
	Rejected       uint64 `json:"rejected"`
	Expired        uint64 `json:"expired"`
	Cancelled      uint64 `json:"cancelled"`
	Dead           uint64 `json:"dead"`
	Pending        int64  `json:"pending"`
	Deferred       uint64 `json:"deferred"` // times, not deliveries
	Replayed       uint64 `json:"replayed"` // times
	ChunksExpanded uint32 `json:"chunks_expanded"`
	Chunks         uint32 `json:"chunks"`
}

func figuresOf(a *pb.Account) Figures {
	ended := a.GetAccepted() + a.GetUnregistered() + a.GetRejected() + a.GetExpired() + a.GetCancelled() + a.GetDead()
	return Figures{
		Planned: a.GetPlanned(), Accepted: a.GetAccepted(), Unregistered: a.GetUnregistered(), Rejected: a.GetRejected(),
		Expired: a.GetExpired(), Cancelled: a.GetCancelled(), Dead: a.GetDead(), Deferred: a.GetDeferred(), Replayed: a.GetReplayed(),
		Pending: int64(a.GetPlanned()) - int64(ended), ChunksExpanded: a.GetChunksExpanded(), Chunks: a.GetChunksTotal(),
	}
}

// Platform is one platform's part of a run.
type Platform struct {
	Name    string  `json:"platform"`
	Account Figures `json:"account"` // as the ledger has it
	Topics  Figures `json:"topics"`  // as counted again from the results

	// What the other topics hold of it.
	Sent        int `json:"sent"`       // deliveries on the send topics
	SentTwice   int `json:"sent_twice"` // of those, written more than once
	EndedTwice  int `json:"ended_twice"`
	NotEnded    int `json:"not_ended"`
	Retries     int `json:"retries"` // records on the retry topics
	DeadLetters int `json:"dead_letters"`

	// What the provider has, where its receipts are known.
	Received *Received `json:"received,omitempty"`
}

// Received is what a simulator's receipts say of deliveries.
type Received struct {
	Deliveries int `json:"deliveries"`
	// Repeats are receipts beyond each delivery's first.
	Repeats int `json:"repeats"`
	// Missing count as accepted, and the provider has no receipt of them.
	Missing int `json:"missing"`
	// Unheard have a receipt, and ended as something else or not yet: the provider's answer was lost.
	Unheard int `json:"unheard"`
}

// Report is one run, counted again.
type Report struct {
	App       string     `json:"app"`
	Run       string     `json:"run"`
	Platforms []Platform `json:"platforms"`
	// Settled tells that nothing is pending: only then must all figures be equal.
	Settled bool `json:"settled"`
	// Differences is what does not add up, in words.
	Differences []string `json:"differences"`
}

// Report compares one run. receipts holds how often the provider accepted each delivery; nil when that is not known.
func (c *Count) Report(r Run, receipts map[[16]byte]int) *Report {
	report := &Report{App: r.App, Run: r.Run, Settled: true, Differences: []string{}}
	for _, p := range schemas.Platforms {
		t := c.runs[r][p]
		if t == nil {
			continue
		}
		one := t.platform(schemas.PlatformName(p), receipts)
		report.Platforms = append(report.Platforms, one)
		report.Settled = report.Settled && one.settled(len(t.chunks))
		report.Differences = append(report.Differences, t.differences(&one, strings.HasPrefix(r.Run, "~"))...)
	}
	return report
}

func (t *tally) platform(name string, receipts map[[16]byte]int) Platform {
	p := Platform{Name: name, Account: figuresOf(t.account), Topics: figuresOf(&t.count), Retries: t.retries}
	if receipts != nil {
		p.Received = &Received{}
	}
	for id, d := range t.deliveries {
		if d.sent > 0 {
			p.Sent++
		}
		if d.sent > 1 {
			p.SentTwice++
		}
		if d.ended > max(1, d.sent) {
			p.EndedTwice++
		}
		if d.ended == 0 {
			p.NotEnded++
		}
		p.DeadLetters += int(d.letters)
		if receipts != nil {
			p.Received.add(receipts[id], d)
		}
	}
	return p
}

func (r *Received) add(times int, d delivery) {
	accepted := d.ended > 0 && d.outcome == pb.Outcome_OUTCOME_ACCEPTED
	if times > 0 {
		r.Deliveries++
		r.Repeats += times - 1
	}
	if accepted && times == 0 {
		r.Missing++
	}
	if times > 0 && !accepted {
		r.Unheard++
	}
}

func (p *Platform) settled(chunks int) bool {
	return p.NotEnded == 0 && p.Topics.Pending == 0 && int(p.Topics.ChunksExpanded) == chunks
}

// differences says what does not add up. What still moves is read so that a later source holds at least what an earlier
// one does; once all has ended they must be equal.
func (t *tally) differences(p *Platform, transactional bool) (all []string) {
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			all = append(all, p.Name+": "+fmt.Sprintf(format, args...))
		}
	}
	settled := p.settled(len(t.chunks))
	wrong(settled && p.Account != p.Topics, "the account is %s, and the results come to %s", p.Account, p.Topics)
	wrong(!settled && ahead(p.Account, p.Topics), "the account is %s, ahead of the results, which come to %s", p.Account, p.Topics)
	wrong(p.Topics.Pending < 0, "%d more outcomes than were planned", -p.Topics.Pending)
	wrong(p.EndedTwice > 0, "%d deliveries ended more often than they were sent", p.EndedTwice)
	wrong(settled && p.DeadLetters != int(p.Topics.Dead+t.replayed), "%d are dead and %d were sent again from their letters, and there are %d dead letters",
		p.Topics.Dead, t.replayed, p.DeadLetters)
	if !transactional {
		wrong(p.SentTwice > int(p.Topics.Replayed), "%d deliveries were sent out twice, and %d replayed", p.SentTwice, p.Topics.Replayed)
		wrong(p.Sent < int(p.Topics.Planned) || settled && p.Sent != int(p.Topics.Planned),
			"%d deliveries were planned, and %d lie on the send topics", p.Topics.Planned, p.Sent)
		twice := 0
		for _, n := range t.expanded {
			if n > 1 {
				twice++
			}
		}
		wrong(twice > 0, "%d chunks were expanded more than once", twice)
		wrong(p.Topics.Chunks > 0 && int(p.Topics.Chunks) != len(t.chunks), "%d chunks were announced, and %d lie on the topic", p.Topics.Chunks, len(t.chunks))
	}
	if p.Received != nil {
		wrong(p.Received.Missing > 0, "%d were counted as accepted, and the provider has no receipt of them", p.Received.Missing)
	}
	return all
}

// ahead tells whether the account counts anything that the results do not hold.
func ahead(account, topics Figures) bool {
	return account.Planned > topics.Planned || account.Accepted > topics.Accepted || account.Unregistered > topics.Unregistered ||
		account.Rejected > topics.Rejected || account.Expired > topics.Expired || account.Cancelled > topics.Cancelled ||
		account.Deferred > topics.Deferred || account.ChunksExpanded > topics.ChunksExpanded
}

func (f Figures) String() string {
	return fmt.Sprintf("%d planned, %d accepted, %d unregistered, %d rejected, %d expired, %d cancelled, %d dead, %d pending, %d deferred, %d replayed, %d/%d chunks",
		f.Planned, f.Accepted, f.Unregistered, f.Rejected, f.Expired, f.Cancelled, f.Dead, f.Pending, f.Deferred, f.Replayed, f.ChunksExpanded, f.Chunks)
}
