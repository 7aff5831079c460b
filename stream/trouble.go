package stream

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// heldAfter is how long commits may fail before nothing more should be begun: a leader that moves takes less.
	heldAfter = time.Second
	// toldAfter is how long before this process is not ready.
	toldAfter = 5 * time.Second
	// loggedAfter is how long before it is said. Watch, which tells of a Kafka that is away, needs less to find out.
	loggedAfter = 10 * time.Second
	// suspectsAtMost bounds what a probe writes.
	suspectsAtMost = 16
)

// trouble is something of a consumer that fails, again and again. It is safe for concurrent use.
type trouble struct {
	fails, works string // what is said of it, once each, if it is

	mu    sync.Mutex // guards what follows
	since time.Time  // the first of those that failed one after another; zero when the last one did not
	mine  time.Time  // since then it has been failing while Kafka answered
	last  time.Time
	err   error // the last one's
	told  bool
}

func (t *trouble) note(k *Kafka, log *slog.Logger, err error) {
	away := k.Away() // of that Watch tells
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err, t.last = err, time.Now()
	if t.since.IsZero() {
		t.since, t.mine = t.last, t.last
	}
	if away {
		t.mine = t.last
	}
	if t.last.Sub(t.mine) >= loggedAfter && !t.told && t.fails != "" {
		t.told = true
		log.Error(t.fails, "err", t.err)
	}
}

func (t *trouble) over(log *slog.Logger) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told {
		log.Info(t.works, "after", time.Since(t.since).Round(time.Second))
	}
	t.since, t.err, t.told = time.Time{}, nil, false
}

// fades ends it where nothing tells of a success: when it has not been noted for some time.
func (t *trouble) fades(log *slog.Logger) {
	t.mu.Lock()
	quiet := !t.since.IsZero() && time.Since(t.last) > 2*toldAfter
	t.mu.Unlock()
	if quiet {
		t.over(log)
	}
}

// lasts tells for how long it has been failing, and why.
func (t *trouble) lasts() (time.Duration, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since.IsZero() {
		return 0, nil
	}
	return time.Since(t.since), t.err
}

// Held says that commits do not succeed, so that what is begun now might be repeated: who does what cannot be taken back should
// begin nothing. It is safe for concurrent use.
func (c *Consumer) Held() bool {
	since, _ := c.commits.lasts()
	return since >= heldAfter
}

// Health is why the consumer does not get on, or nil: it has not come to consume or to commit for 5 s, or partitions stand
// still. It is safe for concurrent use.
func (c *Consumer) Health() error {
	var all []error
	if since, err := c.opening.lasts(); since >= toldAfter {
		all = append(all, fmt.Errorf("%s: it has not begun for %v: %w", c.o.Name, since.Round(time.Second), err))
	}
	for _, t := range []*trouble{&c.missing, &c.fetching} {
		if since, err := t.lasts(); since >= toldAfter {
			all = append(all, fmt.Errorf("%s: %w", c.o.Name, err))
		}
	}
	if since, err := c.commits.lasts(); since >= toldAfter {
		all = append(all, fmt.Errorf("%s: commits have not succeeded for %v: %w", c.o.Name, since.Round(time.Second), err))
	}
	for _, p := range c.held() {
		p.mu.Lock()
		if p.halted != nil {
			all = append(all, fmt.Errorf("%s: %w", c.o.Name, p.halted))
		}
		p.mu.Unlock()
	}
	return errors.Join(all...)
}

// failures are what became of records that were not taken: the first error, and the first record of each partition. It is safe
// for concurrent use.
type failures struct {
	mu      sync.Mutex
	err     error
	records []*kgo.Record
}

// note is a record's promise. r may be nil.
func (f *failures) note(r *kgo.Record, err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r != nil {
		err = fmt.Errorf("produce to %s: %w", r.Topic, err)
		f.suspect(r)
	}
	if f.err == nil {
		f.err = err
	}
}

// suspect keeps a record. mu is held.
func (f *failures) suspect(r *kgo.Record) {
	if len(f.records) == suspectsAtMost {
		return
	}
	for _, before := range f.records {
		if before.Topic == r.Topic && before.Partition == r.Partition {
			return
		}
	}
	f.records = append(f.records, &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers, Partition: r.Partition})
}

func (f *failures) get() ([]*kgo.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.records, f.err
}

// Explain adds to what Kafka refuses what an operator can do about it, where that is known. nil stays nil.
func Explain(err error) error {
	if mend := mendOf(err); mend != "" {
		return fmt.Errorf("%w; %s", err, mend)
	}
	return err
}

func mendOf(err error) string {
	is := func(known error) bool { return errors.Is(err, known) }
	switch {
	case is(kerr.InvalidTimestamp):
		return fmt.Sprintf("records may be no more than message.timestamp.after.max.ms, an hour by default, ahead of Kafka's clock, "+
			"and this machine's says %s: set it right", time.Now().UTC().Format(time.RFC3339))
	case is(kerr.MessageTooLarge):
		return "raise max.message.bytes of the topic, to 1 MiB or more"
	case is(kerr.RecordListTooLarge):
		return "raise max.message.bytes and segment.bytes of the topic"
	case is(kerr.NotEnoughReplicas), is(kerr.NotEnoughReplicasAfterAppend):
		return "fewer replicas are in sync than min.insync.replicas asks for: bring brokers back"
	case is(kerr.TopicAuthorizationFailed):
		return "allow this user Write, Read and Describe on the topic"
	case is(kerr.GroupAuthorizationFailed):
		return "allow this user Read on the group"
	case is(kerr.TransactionalIDAuthorizationFailed):
		return "allow this user Write and Describe on the transactional id"
	case is(kerr.UnknownTopicOrPartition):
		return "run belfry topics apply"
	}
	return ""
}
