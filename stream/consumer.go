package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/failpoint"
)

// Numbers that a role has no reason to choose.
const (
	commitEvery   = 250 * time.Millisecond
	commitRecords = 10_000  // or as soon as so many tasks or outputs of one partition wait
	commitPart    = 2       // or one in so many of what a partition may hold, lest its fetching pause for want of a commit
	commitBytes   = 3 << 20 // or so many bytes of outputs of all partitions
	drainTimeout  = 5 * time.Second
	pollRecords   = 2_000
	spanFactor    = 8 // how many times the records held may lie between the lowest unfinished and the newest
	// A transaction must end before its member can be declared dead, or a successor could read offsets that it still may move.
	transactionTimeout = 10 * time.Second
	sessionTimeout     = 12 * time.Second
	maxBackoff         = 5 * time.Second
	// A commit that fails so often, for 10 s each, ends the session: new clients may see what these do not.
	maxCommitFailures = 6
)

// Options describe a consumer.
type Options struct {
	// Name of the role, unique in the cluster, e.g. "senders.apns.bulk": the group, and with the instance the
	// transactional id.
	Name string
	// Topics to consume, without prefix.
	Topics []string
	// Records and Bytes bound what one partition may hold in memory. 0 means 8,192 and 16 MiB.
	Records int
	Bytes   int64
	// Handle takes the records of one partition in the order of their offsets, from one goroutine per assignment.
	// Different partitions call it at the same time. It may block: the window then fills and its fetching pauses, nothing
	// else waits. It must return soon after ctx ends, which is when the partition goes away or the consumer stops; what it
	// has not begun it gives back with Release. Each task must end once, by Done or Release, whoever calls it.
	Handle func(ctx context.Context, tasks []*Task)
}

// Consumer owns one group's part in one process: a consumer client, a transactional producer client, a window for each
// partition, and the commits. See Run.
type Consumer struct {
	k   *Kafka
	o   Options
	log *slog.Logger

	mu         sync.Mutex
	partitions map[tp]*partition
	epoch      uint64
}

type tp struct {
	topic     string // without prefix
	partition int32
}

// NewConsumer makes a consumer. It starts with Run.
func NewConsumer(k *Kafka, o Options) *Consumer {
	if o.Records == 0 {
		o.Records = 8192
	}
	if o.Bytes == 0 {
		o.Bytes = 16 << 20
	}
	return &Consumer{k: k, o: o, log: k.Log.With("consumer", o.Name), partitions: map[tp]*partition{}}
}

// Run consumes until ctx is done. Then it stops dispatching, waits up to 5 s for the tasks in flight, commits, leaves the
// group, and returns nil. Whatever goes wrong before that is said in the log and tried again from the last commit, with
// new clients: a broker that is away, a missing topic, a lost transaction. Run it once.
func (c *Consumer) Run(ctx context.Context) error {
	for backoff := 100 * time.Millisecond; ; backoff = min(2*backoff, maxBackoff) {
		began := time.Now()
		err := c.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > time.Minute {
			backoff = 100 * time.Millisecond
		}
		c.log.Warn("consumer starts over from its last commit", "err", err, "after", backoff)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff):
		}
	}
}

// session is one life of the two clients.
type session struct {
	*Consumer
	// ctx ends the session; its cause is why.
	ctx    context.Context
	fail   context.CancelCauseFunc
	topics kadm.TopicDetails
	group  *kgo.Client
	// abandon aborts the group client's requests: closing waits for a join or sync under way, which may take a rebalance.
	abandon context.CancelFunc
	// full asks for a commit before its time.
	full chan struct{}
	// waiting is the bytes of outputs that wait for a commit.
	waiting atomic.Int64
	wg      sync.WaitGroup
	// stopping says that no partition is taken any more: see lastHeld. Consumer.mu guards it.
	stopping bool

	commitMu sync.Mutex // guards all below; held for as long as a commit takes
	writer   *kgo.Client
	// pending is a snapshot that is not known to stand on Kafka yet.
	pending *snapshot
	// doubtful says that the writer's last transaction has no known end.
	doubtful bool
}

func (c *Consumer) session(parent context.Context) error {
	ctx, fail := context.WithCancelCause(context.WithoutCancel(parent))
	s := &session{Consumer: c, ctx: ctx, fail: fail, full: make(chan struct{}, 1)}
	if err := s.open(parent); err != nil {
		return err
	}
	defer s.close()
	s.wg.Go(s.committer)
	drained := make(chan struct{})
	stop := context.AfterFunc(parent, func() {
		defer close(drained)
		s.drain(s.lastHeld())
		s.leave()
		fail(context.Canceled)
	})
	s.poll()
	if !stop() {
		<-drained
	}
	return context.Cause(ctx)
}

// open makes the clients. Both wait for nothing: the group client joins when it is first polled.
func (s *session) open(ctx context.Context) error {
	names := make([]string, len(s.o.Topics))
	for i, t := range s.o.Topics {
		names[i] = s.k.Topic(t)
	}
	if err := s.openWriter(); err != nil {
		return err
	}
	var err error
	if s.topics, err = s.describe(ctx, names); err == nil {
		// Ends a transaction that a predecessor of this name left open, before its offsets are read.
		_, _, err = s.writer.ProducerID(ctx)
	}
	if err == nil {
		var groupCtx context.Context
		groupCtx, s.abandon = context.WithCancel(s.ctx)
		s.group, err = s.k.Client(
			kgo.WithContext(groupCtx),
			kgo.ConsumerGroup(s.groupName()),
			kgo.ConsumeTopics(names...),
			kgo.DisableAutoCommit(),
			// A static member: a process that comes back under its name, killed or not, has its partitions at once, and the
			// others are not disturbed. One that stops in good order leaves: see leave.
			kgo.InstanceID(s.k.Instance),
			kgo.SessionTimeout(sessionTimeout),
			kgo.FetchIsolationLevel(kgo.ReadCommitted()),
			kgo.FetchMaxBytes(4<<20),
			kgo.FetchMaxPartitionBytes(512<<10),
			// A partition that is resumed joins the next fetch only, and an idle one may take as long as this.
			kgo.FetchMaxWait(commitEvery),
			kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
			// A committed position that the log no longer has is work that retention ate: stop there, never jump.
			kgo.ConsumeResetOffset(kgo.NoResetOffset()),
			kgo.OnOffsetsFetched(s.assigned),
			kgo.OnPartitionsRevoked(s.revoked),
			kgo.OnPartitionsLost(s.lost),
		)
	}
	if err != nil {
		s.writer.Close()
		return fmt.Errorf("open %s: %w", s.o.Name, err)
	}
	return nil
}

func (s *session) openWriter() (err error) {
	s.writer, err = s.k.Client(
		kgo.TransactionalID(s.transactionalID()),
		kgo.TransactionTimeout(transactionTimeout),
		// Windows bound what is buffered; the client's own bound would only split a commit.
		kgo.MaxBufferedRecords(1<<30),
		kgo.ManualFlushing(),
	)
	if err != nil {
		return fmt.Errorf("producer client of %s: %w", s.o.Name, err)
	}
	return nil
}

// reopenWriter replaces the writer by a new one of the same transactional id, which ends what the old one began.
func (s *session) reopenWriter(ctx context.Context) error {
	s.writer.Close()
	if err := s.openWriter(); err != nil {
		return err
	}
	if _, _, err := s.writer.ProducerID(ctx); err != nil {
		return fmt.Errorf("end the transaction before: %w", err)
	}
	return nil
}

func (s *session) groupName() string       { return s.k.Prefix + s.o.Name }
func (s *session) transactionalID() string { return s.groupName() + "." + s.k.Instance }

// describe finds the topics' ids, which the commit names, and says which are missing.
func (s *session) describe(ctx context.Context, names []string) (kadm.TopicDetails, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	found, err := kadm.NewClient(s.writer).ListTopics(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("ask Kafka at %v for topics: %w", s.k.Brokers, err)
	}
	for _, t := range found {
		if errors.Is(t.Err, kerr.UnknownTopicOrPartition) {
			return nil, fmt.Errorf("topic %s is missing: run belfry topics apply", t.Topic)
		}
		if t.Err != nil {
			return nil, fmt.Errorf("topic %s: %w", t.Topic, t.Err)
		}
	}
	return found, nil
}

// close ends the session: whatever is still held is dropped without a commit, and comes again.
func (s *session) close() {
	s.fail(context.Canceled)
	s.abandon()
	s.group.Close()
	for _, p := range s.held() {
		s.drop(p)
	}
	s.wg.Wait()
	s.writer.Close()
}

// leave gives the partitions to the others now rather than after the session timeout.
func (s *session) leave() {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	defer cancel()
	_, err := kadm.NewClient(s.writer).LeaveGroup(ctx, kadm.LeaveGroup(s.groupName()).InstanceIDs(s.k.Instance))
	if err != nil {
		s.log.Warn("could not leave the group; its partitions wait until the session times out", "err", err)
	}
}

// poll hands fetched records to their windows, until the session ends. It never waits for a task.
func (s *session) poll() {
	for {
		fetches := s.group.PollRecords(s.ctx, pollRecords)
		if s.ctx.Err() != nil {
			return
		}
		if !fetches.Empty() {
			failpoint.Hit(failpoint.Polled)
		}
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			p := s.partition(tp{s.k.bare(f.Topic), f.Partition})
			if p == nil {
				return // revoked since
			}
			if f.Err != nil {
				s.fetchFailed(p, f.Err)
			}
			p.receive(f.Records, f.HighWatermark)
			s.throttle(p)
		})
		for _, e := range fetches.Errors() {
			s.pollFailed(e)
		}
	}
}

// pollFailed says what hinders the group as a whole. The client goes on by itself.
func (s *session) pollFailed(e kgo.FetchError) {
	switch {
	case errors.Is(e.Err, kerr.FencedInstanceID):
		s.fail(fmt.Errorf("another process consumes as instance %q: give each its own instance name", s.k.Instance))
	case s.partition(tp{s.k.bare(e.Topic), e.Partition}) == nil && !retriable(e.Err):
		s.log.Warn("fetch failed", "topic", e.Topic, "partition", e.Partition, "err", e.Err)
	}
}

func (s *session) fetchFailed(p *partition, err error) {
	if !errors.Is(err, kerr.OffsetOutOfRange) {
		if !retriable(err) {
			s.log.Warn("fetch failed", "topic", p.topic, "partition", p.partition, "err", err)
		}
		return
	}
	err = fmt.Errorf("position %d of %s/%d is not on its log any more: retention removed records that were not done; "+
		"this partition stops here. To go on from what is left, stop this role and set the offset of group %s by hand",
		p.committed(), s.k.Topic(p.topic), p.partition, s.groupName())
	if p.halt(err) {
		s.group.PauseFetchPartitions(map[string][]int32{s.k.Topic(p.topic): {p.partition}})
		s.log.Error("partition stopped", "topic", p.topic, "partition", p.partition, "err", err)
	}
}

// retriable errors are the client's business: it tries again by itself, and Watch says when Kafka is away.
func retriable(err error) bool {
	return kerr.IsRetriable(err) || kgo.IsRetryableBrokerErr(err) || errors.Is(err, context.Canceled) || errors.Is(err, kgo.ErrClientClosed)
}

// throttle pauses a partition whose window is nearly full. Pausing throws away what the client has buffered of it, so
// there is room between the marks.
func (s *session) throttle(p *partition) {
	name := map[string][]int32{s.k.Topic(p.topic): {p.partition}}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch fill := p.fill(); {
	case !p.paused && fill >= 0.9:
		p.paused = true
		s.group.PauseFetchPartitions(name)
	case p.paused && p.halted == nil && fill <= 0.5:
		p.paused = false
		s.group.ResumeFetchPartitions(name)
	}
}

func (c *Consumer) partition(k tp) *partition {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.partitions[k]
}

// lastHeld lists the partitions at hand, and sees to it that no other comes: one that another member's leaving brings while
// these end would be begun, and not committed.
func (s *session) lastHeld() []*partition {
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	return s.held()
}

// held lists the partitions at hand.
func (c *Consumer) held() []*partition {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*partition, 0, len(c.partitions))
	for _, p := range c.partitions {
		all = append(all, p)
	}
	return all
}
