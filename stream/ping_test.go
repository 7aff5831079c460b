package stream_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// deaf is the address of a broker that stands: it takes connections, and answers nothing.
func deaf(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c) }()
		}
	}()
	return l.Addr().String()
}

// One broker that stands is not Kafka: the others answer.
func TestOneBrokerThatStandsIsNotKafkaAway(t *testing.T) {
	t.Parallel()
	well, _ := streamtest.Embedded(t, streamtest.Topic{Name: "in", Partitions: 1})
	alone := &stream.Kafka{Brokers: []string{deaf(t)}, Prefix: well.Prefix, Instance: "test", Log: streamtest.Log(t)}
	beside := *alone
	beside.Brokers = append(beside.Brokers, deaf(t), well.Brokers[0])
	for _, k := range []*stream.Kafka{alone, &beside} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := stream.Ping(ctx, streamtest.Client(t, k))
		cancel()
		if answers := err == nil; answers != (k == &beside) {
			t.Errorf("of %d brokers: %v", len(k.Brokers), err)
		}
	}
	// Nor is a broker that is gone.
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	beside.Brokers = []string{gone.Addr().String()}
	if err := stream.Ping(t.Context(), streamtest.Client(t, &beside)); err == nil {
		t.Error("a broker that is gone answers")
	}
	beside.Brokers = append(beside.Brokers, well.Brokers[0])
	if err := stream.Ping(t.Context(), streamtest.Client(t, &beside)); err != nil {
		t.Errorf("beside one that is gone: %v", err)
	}
}
