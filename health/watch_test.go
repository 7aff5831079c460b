package health

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/lanes"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	"github.com/belfry/belfry/stream/streamtest"
)

func TestARegistryStandsWhenItAppliesNothingOfWhatWaits(t *testing.T) {
	k := streamtest.Kafka(t)
	client := streamtest.Client(t, k)
	w := newWatcher(k, client, lanes.NewView(k, time.Now))
	w.counts, w.lag = true, registry.NewLag(k, client)
	begin := time.Now()
	for w.look(t.Context(), begin); w.unknown() != nil; w.look(t.Context(), begin) { // a new cluster makes its groups' topic first
		if time.Since(begin) > 2*time.Minute {
			t.Fatal(w.unknown())
		}
		time.Sleep(50 * time.Millisecond)
	}
	at := func(after time.Duration, stands bool) {
		t.Helper()
		w.look(t.Context(), begin.Add(after))
		if err := w.unknown(); err != nil {
			t.Fatal(err)
		}
		if err := w.stands(begin.Add(after)); (err != nil) != stands {
			t.Errorf("after %v: %v", after, err)
		}
	}
	at(0, false)
	at(time.Hour, false) // there was nothing to apply
	streamtest.Produce(t, k, &kgo.Record{Topic: schemas.TopicDevices, Key: schemas.Key("shop", "d-1")})
	at(time.Hour+time.Second, false)
	at(time.Hour+30*time.Second, false)
	at(time.Hour+31*time.Second, true)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if w.look(over, begin); w.unknown() == nil || w.stands(begin.Add(2*time.Hour)) != nil {
		t.Errorf("while Kafka does not tell: %v, %v", w.unknown(), w.stands(begin.Add(2*time.Hour)))
	}
	at(2*time.Hour, false) // nobody looked between
	at(2*time.Hour+30*time.Second, true)
	streamtest.Run(t, registry.NewApplier(k, registrytest.Registry(t, registrytest.Redis(t))).Run)
	for begun := time.Now(); w.stands(begin.Add(3*time.Hour)) != nil; time.Sleep(20 * time.Millisecond) {
		w.look(t.Context(), begin.Add(3*time.Hour))
		if time.Since(begun) > 2*time.Minute {
			t.Fatal("it stands though it applied everything")
		}
	}
}

// TestNotReadyWhileTheRegistryStands: changes of devices wait, and nobody applies them.
func TestNotReadyWhileTheRegistryStands(t *testing.T) {
	t.Parallel()
	k, r := streamtest.Kafka(t), registrytest.Redis(t)
	if err := registry.Rebuild(t.Context(), k, registry.New(r), nil); err != nil {
		t.Fatal(err)
	}
	p, err := New(Options{Kafka: k, Redis: r, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	streamtest.Run(t, p.Run)
	says := func(want string) {
		t.Helper()
		var got error
		for begun := time.Now(); time.Since(begun) < 2*time.Minute; time.Sleep(20 * time.Millisecond) {
			if got = p.Ready(t.Context()); want == "" && got == nil || got != nil && want != "" && strings.Contains(got.Error(), want) {
				return
			}
		}
		t.Fatalf("got %v, want %q", got, want)
	}
	says("")
	streamtest.Produce(t, k, &kgo.Record{Topic: schemas.TopicDevices, Key: schemas.Key("shop", "d-1")})
	stand := func(since time.Time) {
		p.watcher.mu.Lock()
		defer p.watcher.mu.Unlock()
		p.watcher.standing, p.watcher.waiting = since, 1
	}
	stand(time.Now().Add(-20 * time.Second))
	says("") // it may take its time
	stand(time.Now().Add(-time.Minute))
	says("has applied nothing for 1m")
	streamtest.Run(t, registry.NewApplier(k, registry.New(r)).Run)
	says("")
}
