package stream

import (
	"crypto/tls"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/plugin/kslog"

	"github.com/belfry/belfry/schemas"
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
	Log  *slog.Logger
}

// Topic is the full name of a topic of the plan.
func (k *Kafka) Topic(name string) string { return k.Prefix + name }

func (k *Kafka) bare(topic string) string { return strings.TrimPrefix(topic, k.Prefix) }

// Client makes a client for this cluster. Topics that it is given, in options and records, are full names.
func (k *Kafka) Client(opts ...kgo.Opt) (*kgo.Client, error) {
	base := []kgo.Opt{
		kgo.SeedBrokers(k.Brokers...),
		kgo.ClientID("belfry"),
		// After a leader moved, the default would wait 5 s between looks for the new one.
		kgo.MetadataMinAge(time.Second),
		kgo.RecordPartitioner(k.partitioner()),
		kgo.WithLogger(quiet{kslog.New(k.Log.With("part", "kafka-client").WithGroup("kgo"))}),
	}
	if k.TLS != nil {
		base = append(base, kgo.DialTLSConfig(k.TLS))
	}
	if k.SASL != nil {
		base = append(base, kgo.SASL(k.SASL))
	}
	return kgo.NewClient(append(base, opts...)...)
}

// quiet keeps the client's own voice for debugging. What an operator should know the consumers, views and Watch say, once.
type quiet struct{ kgo.Logger }

func (q quiet) Level() kgo.LogLevel {
	if level := q.Logger.Level(); level >= kgo.LogLevelDebug {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelNone
}

// partitioner is Kafka's own by key, but for devices: what a provider said of one lies beside its registration.
func (k *Kafka) partitioner() kgo.Partitioner {
	byKey := kgo.StickyKeyPartitioner(nil)
	devices := kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
		return func(r *kgo.Record, n int) int { return int(schemas.DevicePartition(r.Key, int32(n))) }
	})
	return partitionerFunc(func(topic string) kgo.TopicPartitioner {
		if topic == k.Topic(schemas.TopicDevices) {
			return devices.ForTopic(topic)
		}
		return byKey.ForTopic(topic)
	})
}

type partitionerFunc func(topic string) kgo.TopicPartitioner

func (f partitionerFunc) ForTopic(topic string) kgo.TopicPartitioner { return f(topic) }

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
