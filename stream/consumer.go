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
)

// Numbers that a role has no reason to choose.
const (
	commitEvery   = 250 * time.Millisecond
	commitRecords = 10_000  // or as soon as so many tasks or outputs of one partition wait
	commitPart    = 2       // or one in so many of what a partition may hold, lest its fetching pause for want of a commit
	commitBytes   = 3 << 20 // or so many bytes of outputs of all partitions
	drainTimeout  = 5 * time.Second
	leaveTimeout  = 2 * time.Second
	pollRecords   = 2_000
	spanFactor    = 8 // how many times the records held may lie between the lowest unfinished and the newest
	// A transaction must end before its member can be declared dead, or a successor could read offsets that it still may move.
	transactionTimeout = 10 * time.Second
	sessionTimeout     = 12 * time.Second
	// A group waits so long for a member to come and share out the partitions again, having ended what it must not keep: the
	// tasks in drainTimeout, the commit in what is left of it. Who waits for the others says no heartbeat, and the embedded
	// Kafka puts it out for that: so the wait and a heartbeat are shorter than a session.
	rebalanceTimeout  = 10 * time.Second
	heartbeatInterval = time.Second
	writerRetries     = 4
	// A commit that failed is tried again after firstPause, twice that, and so on up to maxBackoff: when what hindered it is
	// over, nothing may stand for long.
	firstPause = 20 * time.Millisecond
	maxBackoff = 5 * time.Second
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
	// Keep says that what Handle does cannot be taken back: what is done, or begun, and not committed when a partition is lost is
	// kept, and committed when this process has the partition again and no other has got on with it. A task that is then released is handed over
	// again.
	Keep bool
	// After are what Handle leans on, as views that are ready: no partition is taken before they are closed. What a consumer of this
	// name and instance had begun when it was killed is ended first: no view is ready before.
	After []<-chan struct{}
}

// Consumer owns one group's part in one process: a consumer client, a transactional producer client, a window for each
// partition, and the commits. See Run.
type Consumer struct {
	k   *Kafka
	o   Options
	log *slog.Logger

	// commits, opening, fetching and missing, its topics, are what fails of its sessions.
	commits, opening, fetching, missing trouble

	mu         sync.Mutex
	partitions map[tp]*partition
	kept       map[tp]*kept
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
	c := &Consumer{k: k, o: o, log: k.Log.With("consumer", o.Name), partitions: map[tp]*partition{}, kept: map[tp]*kept{}}
	c.commits.fails = "commits do not succeed: nothing new is begun, what is done is kept and committed when they do"
	c.commits.works = "commits succeed again"
	c.opening.fails, c.opening.works = "the consumer cannot begin", "the consumer has begun"
	c.fetching.fails, c.fetching.works = "the consumer cannot read", "the consumer reads again"
	c.missing.fails, c.missing.works = "a topic of this consumer is missing", "the topics of this consumer are there again"
	return c
}

// Run consumes until ctx is done. Then it stops dispatching, waits up to 5 s for the tasks in flight, commits, leaves the
// group, and returns nil. Whatever goes wrong before that is said in the log and tried again from the last commit, with
// new clients: a broker that is away, a missing topic, a lost transaction. Run it once.
func (c *Consumer) Run(ctx context.Context) error {
	defer c.k.running(c)()
	said := ""
	for backoff := 100 * time.Millisecond; ; backoff = min(2*backoff, maxBackoff) {
		began := time.Now()
		err := c.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > time.Minute {
			backoff, said = 100*time.Millisecond, ""
		}
		// What keeps it from beginning is said once it lasts, and what was taken away is taken up again.
		if text := err.Error(); text != said && !errors.Is(err, errNotBegun) && !errors.Is(err, errTaken) {
			said = text
			c.log.Warn("consumer starts over from its last commit", "err", err, "after", backoff)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff):
		}
	}
}

// RunTicking is Run with tick called each time that every has passed, by one goroutine, until the consumer has let go of its
// partitions: what a role keeps of them it gives back there.
func (c *Consumer) RunTicking(ctx context.Context, every time.Duration, tick func(now time.Time)) error {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	var ticks sync.WaitGroup
	ticks.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-life.Done():
				return
			case now := <-ticker.C:
				tick(now)
			}
		}
	})
	err := c.Run(ctx)
	stop()
	ticks.Wait()
	return err
}

// lock is a mutex that is held while Kafka is waited for. Under a test's clock a wait for a sync.Mutex would be no wait.
type lock chan struct{}

func (l lock) Lock()   { l <- struct{}{} }
func (l lock) Unlock() { <-l }

// lockWithin is Lock, unless ctx ends before.
func (l lock) lockWithin(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
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
	// stopping says that no partition is taken any more: see lastHeld. unread are those that the group has given and whose
	// committed offsets are not known yet, by when it gave them. Consumer.mu guards both.
	stopping bool
	unread   map[tp]time.Time

	commitMu lock // guards all below; held for as long as a commit takes
	writer   *kgo.Client
	// pending is a snapshot that is not known to stand on Kafka yet.
	pending *snapshot
	// suspects are records, one a partition, that were refused last, or with which nothing could be committed; a next attempt
	// begins with them alone. again is when it may be, pause how long after the last.
	suspects []*kgo.Record
	again    time.Time
	pause    time.Duration
	// doubtful says that the writer's last transaction has no known end.
	doubtful bool
}

func (c *Consumer) session(parent context.Context) error {
	ctx, fail := context.WithCancelCause(context.WithoutCancel(parent))
	s := &session{Consumer: c, ctx: ctx, fail: fail, full: make(chan struct{}, 1), commitMu: make(lock, 1), unread: map[tp]time.Time{}}
	if err := s.open(parent); err != nil {
		c.opening.note(c.k, c.log, err)
		return err
	}
	c.opening.over(c.log)
	defer s.close()
	s.wg.Go(s.committer)
	s.wg.Go(s.topicsStay)
	drained := make(chan struct{})
	stop := context.AfterFunc(parent, func() {
		defer close(drained)
		s.drain(s.lastHeld())
		fail(context.Canceled) // a commit that Kafka does not answer ends, too
		s.leave()
	})
	s.poll()
	if !stop() {
		<-drained
	}
	return context.Cause(ctx)
}

// errNotBegun is a session's whose clients could not begin.
var errNotBegun = errors.New("cannot begin to consume as")

// open makes the clients. The group client joins when it is first polled.
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
		err = s.endBefore(ctx) // so that the offsets that are read next are the last
	}
	if err == nil {
		err = s.await(ctx)
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
			kgo.RebalanceTimeout(rebalanceTimeout),
			kgo.HeartbeatInterval(heartbeatInterval),
			kgo.FetchIsolationLevel(kgo.ReadCommitted()),
			// Markers are how a window gets past what was aborted: see window.pass.
			kgo.KeepControlRecords(),
			kgo.FetchMaxBytes(4<<20),
			kgo.FetchMaxPartitionBytes(512<<10),
			// A partition that is resumed joins the next fetch only, and an idle one may take as long as this.
			kgo.FetchMaxWait(commitEvery),
			kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
			// A committed position that the log no longer has is work that retention ate: stop there, never jump.
			kgo.ConsumeResetOffset(kgo.NoResetOffset()),
			kgo.OnPartitionsAssigned(s.given),
			kgo.OnOffsetsFetched(s.assigned),
			kgo.OnPartitionsRevoked(s.revoked),
			kgo.OnPartitionsLost(s.lost),
		)
	}
	if err != nil {
		s.writer.Close()
		return fmt.Errorf("%w %s: %w", errNotBegun, s.o.Name, err)
	}
	return nil
}

func (s *session) openWriter() (err error) {
	s.writer, err = s.k.Client(
		kgo.TransactionalID(s.transactionalID()),
		kgo.TransactionTimeout(transactionTimeout),
		// About as long as a leader takes to move: who tries on until a commit's time is over never hears what refuses it.
		kgo.RecordRetries(writerRetries),
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
	return s.endBefore(ctx)
}

// endBefore ends the transaction that a writer of this name before this one left open. The client asks Kafka for that until it
// is done, and says nothing; whoever starts should hear of it.
func (s *session) endBefore(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	_, _, err := s.writer.ProducerID(limited)
	switch {
	case err == nil:
		return nil
	case limited.Err() != nil && ctx.Err() == nil:
		return fmt.Errorf("end the transaction before: Kafka has not ended it in %v. A topic that it wrote to does not take its end: "+
			"look at the brokers, and whether its partitions have enough in-sync replicas", transactionTimeout)
	}
	return fmt.Errorf("end the transaction before: %w", err)
}

// await waits for what the consumer comes after.
func (s *session) await(ctx context.Context) error {
	for _, ready := range s.o.After {
		select {
		case <-ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
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

// topicsStay ends the session when one of its topics is another: its windows speak of records that are no more.
func (s *session) topicsStay() {
	ids := topicIDs{}
	for name, t := range s.topics {
		ids[name] = t.ID
	}
	if err := ids.stay(s.ctx, s.k, s.log, s.group, &s.missing, &s.fetching); err != nil {
		s.fail(err)
	}
}

// close ends the session: whatever is still held is dropped without a commit, and comes again.
func (s *session) close() {
	s.fail(context.Canceled)
	s.abandon()
	s.group.Close()
	for _, p := range s.held() {
		s.letGo(p)
	}
	s.wg.Wait()
	s.writer.Close()
}

// leave gives the partitions to the others now rather than after the session timeout. First the member ends: one that hears
// that it has left joins again, and the others would wait for what it never says.
func (s *session) leave() {
	s.abandon()
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	_, err := kadm.NewClient(s.writer).LeaveGroup(ctx, kadm.LeaveGroup(s.groupName()).InstanceIDs(s.k.Instance))
	if err != nil {
		s.log.Warn("could not leave the group; its partitions wait until the session times out", "err", err)
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
