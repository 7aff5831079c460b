package audit

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// Run names a run: a campaign, or one of the accounts that begin with "~".
type Run struct{ App, Run string }

// Count is what the topics say of runs. Read makes it.
type Count struct {
	runs map[Run]map[pb.Platform]*tally
	// Unreadable counts records that are not what their topic holds.
	Unreadable int
}

// tally is one run on one platform.
type tally struct {
	deliveries map[[16]byte]delivery
	chunks     map[uint32]bool
	expanded   map[uint32]int
	// account is the ledger's last word; nil without one.
	account *pb.Account
	// count is what the results come to.
	count pb.Account
	// retries are the records on retry topics.
	retries int
	// replayed are the dead letters that replays have sent again: dead no more.
	replayed uint64
}

// delivery is what the topics say of one. Counts stop at 255.
type delivery struct {
	sent    uint8 // by the fan-out or the API; what comes back from a retry topic is not new
	ended   uint8
	letters uint8
	outcome pb.Outcome // the last end
}

func up(n *uint8) { *n = min(*n, 254) + 1 }

// Read counts the runs that want names, from records not written before since. It reads in an order in which what comes
// first is contained in what comes later, so a run that goes on meanwhile can be told from one that does not add up.
func Read(ctx context.Context, k *stream.Kafka, since time.Time, want func(Run) bool) (*Count, error) {
	r := &reader{ctx: ctx, k: k, since: since, want: want, c: &Count{runs: map[Run]map[pb.Platform]*tally{}}}
	r.accounts()
	for _, p := range schemas.Platforms {
		r.results(p)
		for _, class := range schemas.Classes {
			r.deliveries(schemas.TopicSend(p, class), p, (*tally).sent)
			for _, tier := range schemas.Tiers {
				r.deliveries(schemas.TopicRetry(p, class, tier), p, func(t *tally, _ *pb.Delivery) { t.retries++ })
			}
		}
		r.letters(p)
		r.chunks(p)
	}
	if r.err != nil {
		return nil, fmt.Errorf("audit: %w", r.err)
	}
	return r.c, nil
}

// reader reads topics until one fails.
type reader struct {
	ctx   context.Context
	k     *stream.Kafka
	since time.Time
	want  func(Run) bool
	c     *Count
	err   error
}

func (r *reader) scan(topic string, since time.Time, each func(*kgo.Record)) {
	if r.err == nil {
		r.err = Scan(r.ctx, r.k, topic, since, each)
	}
}

// on does something to a run's tally, if the run is wanted.
func (r *reader) on(app, run string, p pb.Platform, do func(*tally)) {
	if one := (Run{app, run}); r.want(one) {
		do(r.c.tally(one, p))
	}
}

func (r *reader) accounts() {
	r.scan(schemas.TopicAccounts, time.Time{}, func(record *kgo.Record) {
		a := &pb.Account{}
		if r.c.decode(record, a) {
			r.on(a.App, a.Run, a.Platform, func(t *tally) { t.account = a })
		}
	})
}

func (r *reader) results(p pb.Platform) {
	r.scan(schemas.TopicResults(p), r.since, func(record *kgo.Record) {
		batch := &pb.ResultBatch{}
		if parts := schemas.SplitKey(record.Key, 2); len(parts) == 2 && r.c.decode(record, batch) {
			r.on(parts[0], parts[1], p, func(t *tally) { t.results(batch) })
		}
	})
}

func (r *reader) deliveries(topic string, p pb.Platform, add func(*tally, *pb.Delivery)) {
	r.scan(topic, r.since, func(record *kgo.Record) {
		d := &pb.Delivery{}
		if r.c.decode(record, d) {
			r.on(d.App, d.Run, p, func(t *tally) { add(t, d) })
		}
	})
}

func (r *reader) letters(p pb.Platform) {
	r.scan(schemas.TopicDead(p), r.since, func(record *kgo.Record) {
		l := &pb.DeadLetter{}
		if r.c.decode(record, l) && l.Delivery != nil { // else it was no delivery, and is in no account
			r.on(l.Delivery.App, l.Delivery.Run, p, func(t *tally) {
				t.change(l.Delivery.Id, func(d *delivery) { up(&d.letters) })
			})
		}
	})
}

func (r *reader) chunks(p pb.Platform) {
	r.scan(schemas.TopicChunks(p), r.since, func(record *kgo.Record) {
		chunk := &pb.Chunk{}
		if r.c.decode(record, chunk) {
			r.on(chunk.App, chunk.Run, p, func(t *tally) { t.chunks[chunk.Index] = true })
		}
	})
}

func (c *Count) decode(r *kgo.Record, m proto.Message) bool {
	if err := proto.Unmarshal(r.Value, m); err != nil {
		c.Unreadable++
		return false
	}
	return true
}

func (c *Count) tally(r Run, p pb.Platform) *tally {
	if c.runs[r] == nil {
		c.runs[r] = map[pb.Platform]*tally{}
	}
	t := c.runs[r][p]
	if t == nil {
		t = &tally{deliveries: map[[16]byte]delivery{}, chunks: map[uint32]bool{}, expanded: map[uint32]int{}}
		c.runs[r][p] = t
	}
	return t
}

// Runs lists what was counted.
func (c *Count) Runs() []Run {
	all := make([]Run, 0, len(c.runs))
	for r := range c.runs {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Run) int { return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Run, b.Run)) })
	return all
}

func (t *tally) change(id []byte, do func(*delivery)) {
	if len(id) != 16 {
		return
	}
	d := t.deliveries[[16]byte(id)]
	do(&d)
	t.deliveries[[16]byte(id)] = d
}

func (t *tally) sent(d *pb.Delivery) {
	if d.DueAt == 0 && d.Attempt == 0 {
		t.change(d.Id, func(d *delivery) { up(&d.sent) })
	}
}

// results does the ledger's sum a second time, by itself.
func (t *tally) results(batch *pb.ResultBatch) {
	for _, e := range batch.Expanded {
		t.count.Planned += uint64(e.Planned)
		if !e.Partial { // its rest is counted by itself
			t.expanded[e.Chunk]++
			t.count.ChunksExpanded++
		}
		t.count.ChunksTotal = max(t.count.ChunksTotal, e.Total)
	}
	for _, r := range batch.Replayed {
		t.replayed += uint64(r.Dead)
		t.count.Dead -= uint64(r.Dead)
		t.count.Planned += uint64(r.Planned)
		t.count.Replayed += uint64(r.Dead) + uint64(r.Planned)
	}
	for _, r := range batch.Results {
		if r.Planned {
			t.count.Planned++
		}
		if n := field(&t.count, r.Outcome); n != nil {
			*n++
		}
		if r.Outcome != pb.Outcome_OUTCOME_DEFERRED {
			t.change(r.Delivery, func(d *delivery) {
				up(&d.ended)
				d.outcome = r.Outcome
			})
		}
	}
}

func field(a *pb.Account, o pb.Outcome) *uint64 {
	switch o {
	case pb.Outcome_OUTCOME_ACCEPTED:
		return &a.Accepted
	case pb.Outcome_OUTCOME_UNREGISTERED:
		return &a.Unregistered
	case pb.Outcome_OUTCOME_REJECTED:
		return &a.Rejected
	case pb.Outcome_OUTCOME_EXPIRED:
		return &a.Expired
	case pb.Outcome_OUTCOME_CANCELLED:
		return &a.Cancelled
	case pb.Outcome_OUTCOME_DEAD:
		return &a.Dead
	case pb.Outcome_OUTCOME_DEFERRED:
		return &a.Deferred
	}
	return nil
}
