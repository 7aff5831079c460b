package producer

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/lanes"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// follower holds campaigns and their accounts, lanes and restraints as Kafka has them, and tells those who wait of decisions and changes.
type follower struct {
	campaigns, accounts *stream.View
	lanes               *lanes.View // runs elsewhere
	control             *control.View
	log                 *slog.Logger

	mu sync.Mutex // guards all below
	// encoded campaigns by app and id: they are read rarely, and packed they take a fraction of the memory.
	byApp map[string]map[string]packed
	// open is what campaigns that have not ended weigh, by app, and openAll of all apps.
	open    map[string]int64
	openAll int64
	books   map[string]*books // by app/run
	// waiting are the calls that wait for the decision of a command.
	waiting map[string]chan *pb.Decision
}

// packed is an encoded campaign, and what it weighs while it has not ended.
type packed struct {
	value []byte
	open  int64
}

// books are the accounts of one run.
type books struct {
	accounts map[pb.Platform]*pb.Account
	// samples are the ends counted at moments of the last rateWindow, oldest first.
	samples []sample
}

type sample struct {
	at   time.Time
	ends uint64
}

const (
	rateWindow   = 10 * time.Second
	sampleEvery  = time.Second
	missingDelay = 2 * time.Second
)

func newFollower(k *stream.Kafka, v *lanes.View, log *slog.Logger) *follower {
	f := &follower{
		log: log, byApp: map[string]map[string]packed{}, open: map[string]int64{}, books: map[string]*books{}, waiting: map[string]chan *pb.Decision{},
	}
	f.lanes, f.control = v, control.NewView(k)
	f.campaigns = stream.NewView(k, schemas.TopicCampaigns, f.applyCampaign)
	f.accounts = stream.NewView(k, schemas.TopicAccounts, f.applyAccount)
	return f
}

func (f *follower) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.campaigns.Run(ctx) })
	g.Go(func() error { return f.accounts.Run(ctx) })
	g.Go(func() error { return f.control.Run(ctx) })
	return g.Wait()
}

// ready tells whether all views have what was there when they began.
func (f *follower) ready() bool {
	for _, ready := range []<-chan struct{}{f.campaigns.Ready(), f.accounts.Ready(), f.lanes.Ready(), f.control.Ready()} {
		select {
		case <-ready:
		default:
			return false
		}
	}
	return true
}

func (f *follower) applyCampaign(r stream.ViewRecord) {
	key := schemas.SplitKey(r.Key, 2)
	if len(key) != 2 {
		f.log.Warn("a record of campaigns has a key of another form; it is passed over", "partition", r.Partition, "offset", r.Offset)
		return
	}
	app, id := key[0], key[1]
	if r.Value == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.weigh(app, -f.byApp[app][id].open)
		delete(f.byApp[app], id)
		return
	}
	c := &pb.Campaign{}
	if err := proto.Unmarshal(r.Value, c); err != nil {
		f.log.Warn("a record of campaigns cannot be read; it is passed over", "campaign", id, "partition", r.Partition, "offset", r.Offset, "err", err)
		return
	}
	value, open := r.Value, campaignWeight(len(r.Value))
	if ended(c.State) {
		open = 0
	}
	if ended(c.State) && c.Audience != nil {
		// The lists of ended campaigns would fill the memory with what nobody asks for.
		c.Audience.Devices, c.Audience.Users = nil, nil
		if shorter, err := proto.Marshal(c); err == nil {
			value = shorter
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byApp[app] == nil {
		f.byApp[app] = map[string]packed{}
	}
	f.weigh(app, open-f.byApp[app][id].open)
	f.byApp[app][id] = packed{slices.Clone(value), open}
	for _, d := range c.Decisions {
		if w, ok := f.waiting[d.Command]; ok {
			w <- d // it has room for one, and is taken off the map with it
			delete(f.waiting, d.Command)
		}
	}
}

// weigh adds to what an app's open campaigns weigh. f.mu is held.
func (f *follower) weigh(app string, change int64) {
	f.openAll += change
	if f.open[app] += change; f.open[app] == 0 {
		delete(f.open, app)
	}
}

// weight is what campaigns that have not ended weigh: an app's, and all.
func (f *follower) weight(app string) (own, all int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open[app], f.openAll
}

// restraints are how many things are held back: of an app, and in all.
func (f *follower) restraints(app string) (own, all int64) {
	for name := range f.control.All() {
		all++
		if name.App() == app {
			own++
		}
	}
	return own, all
}

func (f *follower) applyAccount(r stream.ViewRecord) {
	a := &pb.Account{}
	if err := proto.Unmarshal(r.Value, a); err != nil {
		f.log.Warn("a record of accounts cannot be read; it is passed over", "partition", r.Partition, "offset", r.Offset, "err", err)
		return
	}
	if r.Value == nil || strings.HasPrefix(a.Run, "~") {
		return // the API shows the books of campaigns
	}
	run := string(schemas.Key(a.App, a.Run))
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.books[run]
	if b == nil {
		b = &books{accounts: map[pb.Platform]*pb.Account{}}
		f.books[run] = b
	}
	b.accounts[a.Platform] = a
	b.sample(r.Timestamp)
}

// sample remembers how far the run is, about once a second.
func (b *books) sample(at time.Time) {
	if n := len(b.samples); n > 0 && at.Sub(b.samples[n-1].at) < sampleEvery {
		return
	}
	var ends uint64
	for _, a := range b.accounts {
		ends += endsOf(a)
	}
	for len(b.samples) > 0 && at.Sub(b.samples[0].at) > rateWindow {
		b.samples = b.samples[1:]
	}
	b.samples = append(slices.Clip(b.samples), sample{at, ends})
}

// endsOf counts the deliveries that have their outcome.
func endsOf(a *pb.Account) uint64 {
	if a == nil {
		return 0
	}
	return a.Accepted + a.Unregistered + a.Rejected + a.Expired + a.Cancelled + a.Dead
}

// campaign finds a campaign, or nil. What is not in view may have been created on another instance just now, so Kafka
// is asked before it is called missing.
func (f *follower) campaign(ctx context.Context, app, id string) (*pb.Campaign, error) {
	if c, err := f.held(app, id); c != nil || err != nil {
		return c, err
	}
	ctx, cancel := context.WithTimeout(ctx, missingDelay)
	defer cancel()
	if err := f.campaigns.CatchUp(ctx); err != nil {
		return nil, unavailable("The campaigns on Kafka cannot be read to their end right now. Wait as Retry-After says and try again.")
	}
	return f.held(app, id)
}

func (f *follower) held(app, id string) (*pb.Campaign, error) {
	f.mu.Lock()
	value := f.byApp[app][id].value
	f.mu.Unlock()
	if value == nil {
		return nil, nil
	}
	c := &pb.Campaign{}
	return c, proto.Unmarshal(value, c)
}

// all returns an app's campaigns, in no order.
func (f *follower) all(app string) ([]*pb.Campaign, error) {
	f.mu.Lock()
	values := make([][]byte, 0, len(f.byApp[app]))
	for _, v := range f.byApp[app] {
		values = append(values, v.value)
	}
	f.mu.Unlock()
	campaigns := make([]*pb.Campaign, len(values))
	for i, v := range values {
		campaigns[i] = &pb.Campaign{}
		if err := proto.Unmarshal(v, campaigns[i]); err != nil {
			return nil, err
		}
	}
	return campaigns, nil
}

// await returns a channel that gets the decision of a command, and what to call when nobody waits any more.
func (f *follower) await(command string) (<-chan *pb.Decision, func()) {
	w := make(chan *pb.Decision, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting[command] = w
	return w, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.waiting[command] == w {
			delete(f.waiting, command)
		}
	}
}
