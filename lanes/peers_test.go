package lanes

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

func told(change func(*pb.Peer)) *pb.Peer {
	p := &pb.Peer{Roles: []string{"all"}, Version: "v1", RedisPrefix: "belfry:", Apps: map[string]*pb.AppPrint{
		"news": {Platforms: map[string]uint64{"fcm": 1}, Rules: 7},
		"shop": {Platforms: map[string]uint64{"apns": 2, "webpush": 3}, Rules: 8},
	}}
	if change != nil {
		change(p)
	}
	return p
}

func TestDifferences(t *testing.T) {
	for name, c := range map[string]struct {
		other func(*pb.Peer)
		want  []string
	}{
		"alike":              {nil, nil},
		"version and roles":  {func(p *pb.Peer) { p.Version, p.Roles = "v2", []string{"fanout"} }, nil},
		"prefix":             {func(p *pb.Peer) { p.RedisPrefix = "x:" }, []string{`redis.prefix is "belfry:" here and "x:" there`}},
		"an app fewer":       {func(p *pb.Peer) { delete(p.Apps, "shop") }, []string{"only here app shop"}},
		"an app more":        {func(p *pb.Peer) { p.Apps["new"] = &pb.AppPrint{} }, []string{"only there app new"}},
		"a credential":       {func(p *pb.Peer) { p.Apps["shop"].Platforms["apns"] = 9 }, []string{"another credential, or none on one side, for shop/apns"}},
		"a platform fewer":   {func(p *pb.Peer) { delete(p.Apps["shop"].Platforms, "webpush") }, []string{"another credential, or none on one side, for shop/webpush"}},
		"a platform more":    {func(p *pb.Peer) { p.Apps["shop"].Platforms["fcm"] = 0 }, []string{"another credential, or none on one side, for shop/fcm"}},
		"a file not at hand": {func(p *pb.Peer) { p.Apps["news"].Platforms["fcm"] = 0 }, nil},
		"rules":              {func(p *pb.Peer) { p.Apps["news"].Rules = 0 }, []string{"other rules of app news"}},
		"many": {func(p *pb.Peer) {
			for i := range 7 {
				p.Apps[fmt.Sprint("x", i)] = &pb.AppPrint{}
			}
		}, []string{"only there app x0, x1, x2, x3, x4 and 2 more"}},
	} {
		if got := Differences(told(nil), told(c.other)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// lines is what was logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) count(parts ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			n++
		}
	}
	return n
}

// process is one that tells and looks.
func process(t *testing.T, k *stream.Kafka, instance string, peer *pb.Peer) (log *lines, stop func()) {
	t.Helper()
	own := *k
	own.Instance, log = instance, &lines{}
	own.Log = slog.New(slog.NewTextHandler(log, nil))
	view := NewView(&own, time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = view.Run(ctx) })
	wg.Go(func() {
		if err := NewHerald(&own, view, peer).Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return log, stop
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for begun := time.Now(); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Since(begun) > 2*time.Minute {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestAProcessThatWasToldOtherwiseIsNamed: each of the two says of the other what differs, once.
func TestAProcessThatWasToldOtherwiseIsNamed(t *testing.T) {
	k := streamtest.Kafka(t)
	one, _ := process(t, k, "one", told(nil))
	_, _ = process(t, k, "alike", told(func(p *pb.Peer) { p.Roles = []string{"fanout"} }))
	other, stop := process(t, k, "other", told(func(p *pb.Peer) {
		p.RedisPrefix, p.Roles = "x:", []string{"trigger"}
		delete(p.Apps, "shop")
	}))
	says := func(l *lines, parts ...string) func() bool {
		return func() bool { return l.count(append(parts, "level=WARN")...) > 0 }
	}
	until(t, "one names the other", says(one, "other_instance=other", "other_roles=trigger", "redis.prefix", "only here app shop"))
	until(t, "the other names the one", says(other, "other_instance=one", "other_roles=all", "only there app shop"))
	until(t, "the other names the fanout", says(other, "other_instance=alike", "other_roles=fanout"))

	view := NewView(k, time.Now)
	streamtest.Run(t, view.Run)
	until(t, "three processes are seen", func() bool { return len(view.Peers()) == 3 })
	if n := len(view.Fresh()); n != 0 {
		t.Errorf("%d processes are taken for lanes", n)
	}
	stop()
	until(t, "the one that ended is gone", func() bool { return len(view.Peers()) == 2 })
	if n := one.count("level=WARN"); n != 1 {
		t.Errorf("one said %d times what differs, want once", n)
	}
}

// TestWhatDiffersIsSaidOnceForEachChange, over a whole life of another process.
func TestWhatDiffersIsSaidOnceForEachChange(t *testing.T) {
	now := time.Now()
	log, ready := &lines{}, make(chan struct{})
	close(ready)
	v := &View{byKey: map[string]word{}, ready: ready, now: func() time.Time { return now }}
	h := &Herald{
		k: &stream.Kafka{Instance: "one"}, view: v, own: told(nil), told: map[string]string{},
		log: slog.New(slog.NewTextHandler(log, nil)),
	}
	say := func(instance string, p *pb.Peer) {
		t.Helper()
		value, err := proto.Marshal(&pb.LaneStatus{Instance: instance, Peer: p})
		if err != nil {
			t.Fatal(err)
		}
		v.apply(stream.ViewRecord{Key: peerKey(instance, p.Roles), Value: value})
	}
	expect := func(what string, warns, infos int) {
		t.Helper()
		h.look()
		h.look()
		if w, i := log.count("WARN"), log.count("INFO"); w != warns || i != infos {
			t.Errorf("%s: %d warnings and %d lines of good news, want %d and %d", what, w, i, warns, infos)
		}
	}
	say("one", told(nil))
	say("two", told(nil))
	expect("alike", 0, 0)
	say("two", told(func(p *pb.Peer) { p.RedisPrefix = "x:" }))
	expect("another prefix", 1, 0)
	say("two", told(func(p *pb.Peer) { delete(p.Apps, "shop") }))
	expect("another fault", 2, 0)
	say("two", told(nil))
	expect("mended", 2, 1)
	say("two", told(func(p *pb.Peer) { p.RedisPrefix = "x:" }))
	expect("again", 3, 1)
	now = now.Add(PeerLife)
	expect("silent", 3, 1)
	if n := len(v.silent(PeerLife)); n != 2 {
		t.Errorf("%d are silent, want 2", n)
	}
}
