package stream

import (
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestLookThatFailsIsSaidOnce, and not at its first failure, which may be an outage that begins: of that Watch tells.
func TestLookThatFailsIsSaidOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody answers there
	client, err := kgo.NewClient(kgo.SeedBrokers(l.Addr().String()), kgo.RequestRetries(0))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var log strings.Builder
	m := mender{k: &Kafka{Log: slog.New(slog.NewTextHandler(&log, nil))}}
	m.begin()
	for look, want := range []int{0, 1, 1} {
		m.look(t.Context(), client)
		if n := strings.Count(log.String(), "\n"); n != want {
			t.Fatalf("look %d: %d lines, want %d:\n%s", look+1, n, want, log.String())
		}
	}
}
