package senders_test

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry/belfry/message"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/apns"
	"github.com/belfry/belfry/senders/fcm"
	"github.com/belfry/belfry/senders/webpush"
	"github.com/belfry/belfry/senders/wire"
	"github.com/belfry/belfry/simulator"
	"github.com/belfry/belfry/simulator/simulatortest"
	"github.com/belfry/belfry/stream/streamtest"
)

var (
	modelSeeds = flag.Int("model.seeds", 60, "how many random populations TestWhatIsSickCostsWhatIsWellNothing tries")
	modelSeed  = flag.Uint64("model.seed", 0, "try this one alone, and tell of it")
)

// services are those of each platform.
var services = map[pb.Platform][]simulator.Service{
	pb.Platform_PLATFORM_APNS:    {simulator.APNs},
	pb.Platform_PLATFORM_FCM:     {simulator.FCM},
	pb.Platform_PLATFORM_WEBPUSH: {simulator.Chrome, simulator.Mozilla, simulator.Apple, simulator.Windows, simulator.Ntfy},
}

// sicknesses are the kinds of targets that are not good.
var sicknesses = []simulatortest.Kind{
	simulatortest.Gone, simulatortest.Mismatched, simulatortest.Misplaced, simulatortest.Slow, simulatortest.Silent,
	simulatortest.Limited, simulatortest.Postponed, simulatortest.Refusing,
}

// provider is a platform's own, with the credentials of the world's app.
func provider(t *testing.T, p pb.Platform, w *simulatortest.World) senders.Provider {
	log := slog.New(slog.DiscardHandler)
	var made senders.Provider
	var err error
	switch p {
	case pb.Platform_PLATFORM_APNS:
		made, err = apns.New(map[string]apns.Config{"demo": {Key: []byte(w.App.APNsKey), KeyID: w.App.KeyID, TeamID: w.App.TeamID, Topic: w.App.Topic}}, log)
	case pb.Platform_PLATFORM_FCM:
		account, e := w.ServiceAccount(w.App)
		if e != nil {
			t.Fatal(e)
		}
		made, err = fcm.New(map[string]fcm.Config{"demo": {ServiceAccount: account}}, log)
	default:
		var hosts []string
		for _, s := range services[p] {
			hosts = append(hosts, strings.TrimPrefix(w.URL(s), "https://"))
		}
		made, err = webpush.New(map[string]webpush.Config{"demo": {
			PublicKey: w.App.VAPIDPublic, PrivateKey: w.App.VAPIDPrivate, Subject: w.App.Subject, AllowHosts: hosts,
		}}, log)
	}
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// target is a device's.
func target(t *testing.T, d simulator.Device) *pb.Target {
	decode := func(decoder func(string) ([]byte, error), s string) []byte {
		b, err := decoder(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	switch {
	case d.Service <= simulator.APNsSandbox:
		return &pb.Target{Kind: &pb.Target_Apns{Apns: &pb.ApnsTarget{Token: decode(hex.DecodeString, d.Token), Environment: pb.Environment_ENVIRONMENT_PRODUCTION}}}
	case d.Service == simulator.FCM:
		return &pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: d.Token, Fid: d.FID}}}
	}
	// Nobody decrypts what is sent in this model: any key will do.
	return &pb.Target{Kind: &pb.Target_Webpush{Webpush: &pb.WebPushTarget{Endpoint: d.Endpoint, P256Dh: anyKey(), Auth: make([]byte, 16)}}}
}

var anyKey = sync.OnceValue(func() []byte {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return key.PublicKey().Bytes()
})

// population is devices, and when each is sent a message.
type population struct {
	seed     uint64
	platform pb.Platform
	options  simulatortest.Options
	// span is how long they are sent to, latency what an answer takes, roughly.
	span, latency time.Duration
	// runs are how many campaigns they are in.
	runs int
	// kills are when the process is killed.
	kills []time.Duration
}

func populate(seed uint64) *population {
	r := mrand.New(mrand.NewPCG(seed, 11))
	p := &population{
		seed: seed, platform: pb.Platform(1 + r.IntN(3)), runs: 1 + r.IntN(3),
		span: time.Duration(40+r.IntN(40)) * time.Second, latency: time.Duration(5+r.IntN(200)) * time.Millisecond,
	}
	of := services[p.platform]
	p.options = simulatortest.Options{
		Service: of[r.IntN(len(of))], Devices: []int{100, 500, 1500}[r.IntN(3)], Seed: seed, Shares: map[simulatortest.Kind]float64{},
	}
	share, kinds := float64(1+r.IntN(99))/100, 1+r.IntN(3)
	for range kinds {
		p.options.Shares[sicknesses[r.IntN(len(sicknesses))]] += share / float64(kinds)
	}
	for range r.IntN(3) {
		p.kills = append(p.kills, time.Duration(r.Int64N(int64(p.span))))
	}
	return p
}

// result is what the good ones had.
type result struct {
	// took is from the first message to the last good device that has it, worst the longest that one of them waited.
	took, worst time.Duration
	missing     int
	// wrong counts those that ended otherwise than by their own rule.
	wrong map[string]int
}

// play sends to a population, with those that are sick or without.
func (p *population) play(t *testing.T, sick bool, noise uint64) (out result) {
	w := simulatortest.New(t, p.options)
	g := &game{population: p, world: w, start: time.Now(), noise: mrand.New(mrand.NewPCG(p.seed, noise)), index: map[string]int{}}
	g.out.wrong = map[string]int{}
	m := &senders.Model{Provider: provider(t, p.platform, w), Rand: g.noise, Ended: g.ended}
	auth := w.Authorization(t)
	m.Answer = func(ctx context.Context, r *senders.Request) wire.Result { return g.answer(ctx, r, auth) }
	m.Start(p.messages())
	arrivals := make([][]*pb.Delivery, p.span/step+1)
	r := mrand.New(mrand.NewPCG(p.seed, 5))
	for i, d := range w.Devices {
		at, run := time.Duration(r.Int64N(int64(p.span))), r.IntN(p.runs)
		g.index[d.ID] = i
		if w.Kind(d.ID) == simulatortest.Good {
			g.left++
		} else if !sick {
			continue
		}
		arrivals[at/step] = append(arrivals[at/step], &pb.Delivery{
			Id: binary.BigEndian.AppendUint64(make([]byte, 8), uint64(i)), App: "demo", Run: fmt.Sprint("run", run), Device: d.ID, Class: pb.Class_CLASS_BULK,
			Target: target(t, d), CreatedAt: g.start.Add(at).UnixMilli(), ExpiresAt: g.start.Add(24 * time.Hour).UnixMilli(),
		})
	}
	for n := 0; n < len(arrivals) || g.waits() && n < len(arrivals)+3000; n++ {
		if n < len(arrivals) {
			m.Push(arrivals[n]...)
		}
		if slices.ContainsFunc(p.kills, func(k time.Duration) bool { return int(k/step) == n }) {
			m.Kill()
		}
		m.Step(n%5 == 0)
		if *modelSeed != 0 && sick && n%10 == 9 {
			t.Log(time.Since(g.start).Round(time.Second), m.Tell(), g.left)
		}
	}
	m.Stop()
	g.out.missing = g.left
	return g.out
}

// step is how often deliveries arrive, and the lane looks after its destinations.
const step = 100 * time.Millisecond

// game is one play.
type game struct {
	*population
	world *simulatortest.World
	start time.Time

	mu    sync.Mutex // guards what follows
	noise *mrand.Rand
	left  int // good ones that have not ended
	index map[string]int
	out   result
}

func (g *game) waits() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.left > 0
}

// answer is the simulated provider's, without a wire.
func (g *game) answer(ctx context.Context, r *senders.Request, auth string) wire.Result {
	g.mu.Lock()
	takes := g.latency/2 + time.Duration(g.noise.Int64N(int64(g.latency)))
	g.mu.Unlock()
	select {
	case <-ctx.Done():
		return wire.Result{}
	case <-time.After(takes):
	}
	to := &simulator.Request{Service: g.options.Service, Method: http.MethodPost, Path: r.Path, Header: http.Header{"Authorization": {auth}}, Body: r.Body}
	for _, f := range r.Fields {
		to.Header[http.CanonicalHeaderKey(f.Name)] = []string{f.Value}
	}
	if len(r.Plain) > 0 {
		to.Header.Del("Content-Encoding") // it goes without a body: encrypting costs ten times all else
	}
	a := g.world.Providers.Ask(ctx, to)
	return wire.Result{Status: a.Status, Body: a.Body, Header: wire.NewHeader(a.Header()), Sent: true}
}

func (g *game) ended(d *pb.Delivery, o pb.Outcome, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	kind := g.world.Kind(d.Device)
	if kind == simulatortest.Good {
		g.left--
		g.out.took = max(g.out.took, at.Sub(g.start))
		g.out.worst = max(g.out.worst, at.Sub(time.UnixMilli(d.CreatedAt)))
	}
	if !fits(kind, g.options.Service, o) {
		g.out.wrong[string(kind)+" "+o.String()]++
	}
}

// fits says whether a device of a kind may end so. Dead is who was tried as often as any may be.
func fits(k simulatortest.Kind, svc simulator.Service, o pb.Outcome) bool {
	switch o {
	case pb.Outcome_OUTCOME_ACCEPTED:
		// ntfy knows no keys.
		return k == simulatortest.Good || k == simulatortest.Slow || svc == simulator.Ntfy && k != simulatortest.Gone
	case pb.Outcome_OUTCOME_UNREGISTERED:
		return k == simulatortest.Gone || k == simulatortest.Mismatched || k == simulatortest.Misplaced
	case pb.Outcome_OUTCOME_REJECTED:
		return k == simulatortest.Mismatched || k == simulatortest.Misplaced
	case pb.Outcome_OUTCOME_DEAD:
		return k != simulatortest.Good
	}
	return false
}

func (p *population) messages() map[string]*message.Compiled {
	all := map[string]*message.Compiled{}
	for i := range 3 {
		m, err := message.Compile(&pb.Message{Content: &pb.Content{Title: "Hello"}}, message.Campaign)
		if err != nil {
			panic(err)
		}
		all[fmt.Sprint("run", i)] = m
	}
	return all
}

func (p *population) String() string {
	return fmt.Sprintf("seed %d: %d devices of %v in %v, %v, answers take %v, killed at %v",
		p.seed, p.options.Devices, p.options.Service, p.span, p.options.Shares, p.latency, p.kills)
}

// Whatever part of a platform's targets is gone, mismatched, slow, silent, limited or refusing, those that are good have their
// messages within 1.1 of the time that it takes without the others, and nobody ends otherwise than by his own rule.
func TestWhatIsSickCostsWhatIsWellNothing(t *testing.T) {
	if streamtest.OnReal() {
		t.Skip("it has no Kafka: it was run beside the embedded one")
	}
	seeds := make([]uint64, 0, *modelSeeds)
	for i := range *modelSeeds {
		seeds = append(seeds, uint64(i)+1)
	}
	if *modelSeed != 0 {
		seeds = []uint64{*modelSeed}
	}
	worst, noise := 0.0, 0.0
	for _, seed := range seeds {
		p := populate(seed)
		var with, without, again result
		synctest.Test(t, func(t *testing.T) { with = p.play(t, true, 1) })
		synctest.Test(t, func(t *testing.T) { without = p.play(t, false, 1) })
		synctest.Test(t, func(t *testing.T) { again = p.play(t, false, 2) })
		ratio, aa := with.took.Seconds()/max(without.took.Seconds(), 1), again.took.Seconds()/max(without.took.Seconds(), 1)
		worst, noise = max(worst, ratio), max(noise, aa)
		if *modelSeed != 0 {
			t.Logf("%v: with %+v, without %+v", p, with, without)
		}
		if ratio > 1.1 || with.missing > 0 || len(with.wrong)+len(without.wrong) > 0 {
			t.Errorf("%v:\n with %+v\n without %+v", p, with, without)
		}
	}
	t.Logf("%d populations: the worst took %.3f of the time without the others; without them twice, %.3f", len(seeds), worst, noise)
}
