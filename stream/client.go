package stream

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/plugin/kslog"
)

// Kafka says how to reach a cluster, and makes every client. It is safe for concurrent use.
type Kafka struct {
	// Brokers are seed addresses, host:port.
	Brokers []string
	// Prefix stands before every topic, group and transactional id, so that clusters can be shared: "belfry.".
	Prefix string
	// Instance names this process among those that run its roles. It is part of transactional ids: a restarted process
	// ends its predecessor's open transactions by it, and two that have the same name stop each other.
	Instance string
	// TLS is nil for plain connections.
	TLS *tls.Config
	// SASL is nil for none.
	SASL sasl.Mechanism
	// Dial is nil for the operating system's. TLS is not for connections that it makes.
	Dial func(ctx context.Context, network, host string) (net.Conn, error)
	Log  *slog.Logger

	// spreads are how the keys of keyed topics lie, by topic without prefix. CheckCluster and MarkCluster fill them in, before
	// anything else uses this.
	spreads map[string]spread
}

// Topic is the full name of a topic of the plan.
func (k *Kafka) Topic(name string) string { return k.Prefix + name }

func (k *Kafka) bare(topic string) string { return strings.TrimPrefix(topic, k.Prefix) }

// Client makes a client for this cluster. Topics that it is given, in options and records, are full names.
func (k *Kafka) Client(opts ...kgo.Opt) (*kgo.Client, error) {
	forget := &forgets{going: map[string]bool{}}
	base := []kgo.Opt{
		kgo.WithHooks(forget),
		kgo.SeedBrokers(k.Brokers...),
		kgo.ClientID("belfry"),
		// After a leader moved, the default would wait 5 s between looks for the new one.
		kgo.MetadataMinAge(time.Second),
		// Partitions that an operator adds are written to by whoever sees them first: nobody may be long behind. The default
		// is 5 min.
		kgo.MetadataMaxAge(10 * time.Second),
		kgo.RecordPartitioner(k.partitioner()),
		kgo.WithLogger(quiet{kslog.New(k.Log.With("part", "kafka-client").WithGroup("kgo"))}),
	}
	if k.Dial != nil {
		base = append(base, kgo.Dialer(k.Dial))
	} else if k.TLS != nil {
		base = append(base, kgo.DialTLSConfig(k.TLS))
	}
	if k.SASL != nil {
		base = append(base, kgo.SASL(k.SASL))
	}
	client, err := kgo.NewClient(append(base, opts...)...)
	forget.mu.Lock()
	defer forget.mu.Unlock()
	forget.client = client
	return client, err
}

// GiveUp is for a client whose writes end with their context or their time. Without it one that may have reached a broker is waited
// for until that answers, so for as long as Kafka is away (franz-go 1.22, AllowIdempotentProduceCancellation); with it such a one may be
// written twice if it is written again.
func GiveUp() kgo.Opt { return kgo.AllowIdempotentProduceCancellation() }

// restAfterErrors is how long a reader waits after a poll that brought nothing but errors.
const restAfterErrors = 20 * time.Millisecond

// rest keeps a reader from asking as fast as a broker answers, for as long as a topic is away: the client fetches again at once,
// whatever the answer was (franz-go 1.22).
func rest(ctx context.Context, polled kgo.Fetches) {
	if polled.NumRecords() > 0 || len(polled.Errors()) == 0 {
		return
	}
	t := time.NewTimer(restAfterErrors)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// quiet keeps the client's own voice for debugging. What an operator should know the consumers, views and Watch say, once.
type quiet struct{ kgo.Logger }

func (q quiet) Level() kgo.LogLevel {
	if level := q.Logger.Level(); level >= kgo.LogLevelDebug {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelNone
}

// firstError keeps the first of many. It is safe for concurrent use.
type firstError struct {
	mu  sync.Mutex
	err error
}

func (f *firstError) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *firstError) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}
