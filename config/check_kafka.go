package config

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/stream"
)

// checkKafka asks whether the cluster is there, lets us in, is recent enough, and has the topics.
func checkKafka(ctx context.Context, c *Config, r *report) {
	if len(c.Kafka.Brokers) == 0 {
		r.ok("kafka", "is embedded, with its files in %s", c.DataDir)
		return
	}
	k, err := c.Stream(slog.New(slog.DiscardHandler))
	if err != nil {
		r.fail("kafka.tls", "correct the file", "%s", err)
		return
	}
	if c.Kafka.SASL.Mechanism == "PLAIN" && !c.Kafka.TLS.Enabled && !allLoopback(c.Kafka.Brokers) {
		r.warn("kafka.sasl", "set kafka.tls.enabled, or use SCRAM", "PLAIN sends the password over the network as it is")
	}
	client, err := k.Client(kgo.RequestRetries(1), kgo.DialTimeout(checkTimeout/3))
	if err != nil {
		r.fail("kafka", "correct kafka.brokers", "%s", err)
		return
	}
	defer client.Close()
	if err := stream.Ping(ctx, client); err != nil {
		r.fail("kafka", mendKafka(err), "cannot be used at %v: %s", c.Kafka.Brokers, err)
		return
	}
	checkKafkaVersion(ctx, kadm.NewClient(client), r)
	checkTopics(ctx, k, r)
}

func mendKafka(err error) string {
	var first *kgo.ErrFirstReadEOF
	var dns *net.DNSError
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return "correct the user or its password under kafka.sasl"
	case errors.Is(err, kerr.IllegalSaslState):
		return "leave kafka.sasl out: this listener of the brokers asks nobody who one is"
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return "choose a kafka.sasl.mechanism that the brokers have enabled"
	case errors.As(err, &first):
		return "set kafka.tls.enabled as the brokers' listener is, and kafka.sasl if it asks who one is"
	case errors.As(err, &dns):
		return "correct the host name in kafka.brokers"
	default:
		return "start Kafka, or correct kafka.brokers, kafka.tls and kafka.sasl"
	}
}

// transactions is the feature that stream needs at version 2: a producer's epoch then grows with every transaction, so
// that a commit of a stale one is refused (KIP-890). Kafka 4.0 is the first to have it.
const transactions = "transaction.version"

func checkKafkaVersion(ctx context.Context, adm *kadm.Client, r *report) {
	versions, err := adm.ApiVersions(ctx)
	if err != nil {
		r.fail("kafka", "see that the brokers' advertised addresses are reachable from here", "cannot ask the brokers for their versions: %s", err)
		return
	}
	for _, v := range versions.Sorted() {
		if v.Err != nil {
			r.fail("kafka", "see that the broker's advertised address is reachable from here", "broker %d does not answer: %s", v.NodeID, v.Err)
			continue
		}
		level := int16(0)
		for _, f := range v.Raw().FinalizedFeatures {
			if f.Name == transactions {
				level = f.MaxVersionLevel
			}
		}
		if level < 2 {
			r.fail("kafka", "upgrade to Kafka 4.0 or later, then: kafka-features.sh upgrade --feature transaction.version=2", "broker %d (%s) has %s %d; Belfry needs 2", v.NodeID, v.VersionGuess(), transactions, level)
			continue
		}
		r.ok("kafka", "broker %d is %s, with %s %d", v.NodeID, v.VersionGuess(), transactions, level)
	}
}

func checkTopics(ctx context.Context, k *stream.Kafka, r *report) {
	changes, err := stream.PlanTopics(ctx, k)
	if err != nil {
		r.fail("topics", "let the user describe topics and their configuration", "%s", err)
		return
	}
	var missing []string
	for _, c := range changes {
		switch c.Kind {
		case stream.CreateTopic:
			missing = append(missing, c.Topic)
		case stream.Conflict:
			r.fail(c.Topic, "belfry topics repair", "%s", c.Detail)
		default:
			r.warn(c.Topic, "belfry topics apply", "%s", c.Detail)
		}
	}
	switch {
	case len(missing) > 0:
		// A new cluster lacks all fifty: they are one finding.
		r.fail("topics", "belfry topics apply", "%d are missing: %s", len(missing), strings.Join(missing, ", "))
	case len(changes) == 0:
		r.ok("topics", "are as planned")
	}
}

func allLoopback(addresses []string) bool {
	for _, a := range addresses {
		host, _, err := net.SplitHostPort(a)
		if err != nil || !loopback(host) {
			return false
		}
	}
	return true
}
