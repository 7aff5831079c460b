package registry

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// A pipeline whose commands and answers are both longer than any buffer comes through whole.
func TestEmbeddedTakesLongPipelines(t *testing.T) {
	r, err := OpenRedis(RedisConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	value := strings.Repeat("v", 100_000)
	pipe := r.Pipeline()
	for range 100 {
		pipe.Set(t.Context(), "k", value, 0)
		pipe.Get(t.Context(), "k")
	}
	answers, err := pipe.Exec(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range answers {
		if got, ok := a.(*redis.StringCmd); ok && got.Val() != value {
			t.Fatalf("answer %d has %d bytes", i, len(got.Val()))
		}
	}
}

// Whoever waits for an answer is back when its context is over, and nothing of a closed Redis runs on.
func TestEmbeddedLetsGo(t *testing.T) {
	before := runtime.NumGoroutine()
	r, err := OpenRedis(RedisConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.BLPop(ctx, time.Minute, "nothing").Err(); !errors.Is(err, context.DeadlineExceeded) {
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("got %v", err)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, and there were %d", runtime.NumGoroutine(), before)
		}
	}
}

func BenchmarkEmbeddedPing(b *testing.B) {
	r, err := OpenRedis(RedisConfig{})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for b.Loop() {
		if err := r.Ping(b.Context()).Err(); err != nil {
			b.Fatal(err)
		}
	}
}
