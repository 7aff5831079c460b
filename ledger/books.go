package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// written holds every account as it lies on belfry.accounts.
type written struct {
	view *stream.View

	mu       sync.Mutex
	accounts map[string][]byte // by key
}

func newWritten(k *stream.Kafka) *written {
	w := &written{accounts: map[string][]byte{}}
	w.view = stream.NewView(k, schemas.TopicAccounts, func(r stream.ViewRecord) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if r.Value == nil {
			delete(w.accounts, string(r.Key))
			return
		}
		w.accounts[string(r.Key)] = bytes.Clone(r.Value) // a record's value keeps the whole fetch in memory
	})
	return w
}

func (w *written) get(key string) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.accounts[key]
}

// books does the accounts of one platform. All results of one run lie on one partition, so whoever has the partition has
// the run's account alone.
type books struct {
	platform pb.Platform
	written  *written
	guard    *guard

	mu    sync.Mutex
	pages map[int32]*page // by partition
}

// page is what this process has counted on one partition since it got it. What it has not met since is read from
// belfry.accounts: the transaction that moved the partition's offset wrote it there.
type page struct {
	assignment uint64
	accounts   map[string]*pb.Account // by key on belfry.accounts
	windows    map[string]*window     // the same
	trimAt     int
}

// minTrim is how many accounts a page may hold before it looks for those that are safely on belfry.accounts.
const minTrim = 1024

func newBooks(p pb.Platform, w *written, g *guard) *books {
	return &books{platform: p, written: w, guard: g, pages: map[int32]*page{}}
}

func newPage(assignment uint64) *page {
	return &page{assignment: assignment, accounts: map[string]*pb.Account{}, windows: map[string]*window{}, trimAt: minTrim}
}

func (b *books) handle(ctx context.Context, tasks []*stream.Task) {
	p, err := b.page(ctx, tasks[0])
	if err != nil { // ctx is over
		stream.Release(tasks)
		return
	}
	for _, t := range tasks {
		b.enter(p, t)
	}
	p.trim(b.written)
}

// page is the task's partition's, new with each assignment: another process may have written in between, and what this
// one had counted but not committed comes again.
func (b *books) page(ctx context.Context, t *stream.Task) (*page, error) {
	b.mu.Lock()
	p := b.pages[t.Partition]
	b.mu.Unlock()
	if p != nil && p.assignment == t.Assignment() {
		return p, nil
	}
	if err := b.written.view.CatchUp(ctx); err != nil {
		return nil, err
	}
	if err := b.guard.control.CatchUp(ctx); err != nil {
		return nil, err
	}
	p = newPage(t.Assignment())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pages[t.Partition] = p
	return p, nil
}

// enter ends one results record. Its outputs carry the account as it is after it, so that each record can be committed
// by itself.
func (b *books) enter(p *page, t *stream.Task) {
	app, run, batch, err := read(t)
	var a *pb.Account
	if err == nil {
		a, err = b.account(p, app, run)
	}
	if err != nil {
		t.Done(t.DeadLetter(schemas.TopicDead(b.platform), "undecodable", err.Error()))
		return
	}
	before := settled(a)
	add(a, batch)
	key := accountKey(app, run, b.platform)
	outs := b.guard.judge(p.window(string(key)), a, batch, t)
	outs = append(outs, stream.Output{Topic: schemas.TopicAccounts, Key: key, Value: encode(a), Mode: stream.Latest})
	if b.guard.hygienic(app) {
		outs = append(outs, gone(app, batch)...)
	}
	if !before && settled(a) {
		outs = append(outs, settle(a, t.Timestamp))
	}
	t.Done(outs...)
}

func (p *page) window(key string) *window {
	w := p.windows[key]
	if w == nil {
		w = &window{}
		p.windows[key] = w
	}
	return w
}

func read(t *stream.Task) (app, run string, batch *pb.ResultBatch, err error) {
	parts := schemas.SplitKey(t.Key, 2)
	if len(parts) != 2 || parts[0] == "" || parts[1] == "" || !utf8.Valid(t.Key) {
		return "", "", nil, errors.New("key is not app/run")
	}
	batch, err = decodeBatch(t.Value)
	return parts[0], parts[1], batch, err
}

// account is the page's copy, or else the one on belfry.accounts, or a new one.
func (b *books) account(p *page, app, run string) (*pb.Account, error) {
	key := string(accountKey(app, run, b.platform))
	if a := p.accounts[key]; a != nil {
		return a, nil
	}
	a := &pb.Account{}
	if err := proto.Unmarshal(b.written.get(key), a); err != nil {
		return nil, fmt.Errorf("the account %s on %s cannot be read: %w", key, schemas.TopicAccounts, err)
	}
	a.App, a.Run, a.Platform = app, run, b.platform
	p.accounts[key] = a
	return a, nil
}

// trim drops the accounts that are on belfry.accounts as they are here, so that a page holds the runs under way and not
// all there ever were.
func (p *page) trim(w *written) {
	if len(p.accounts) < p.trimAt {
		return
	}
	for key, a := range p.accounts {
		if bytes.Equal(encode(a), w.get(key)) {
			delete(p.accounts, key)
		}
	}
	maps.DeleteFunc(p.windows, func(_ string, w *window) bool { return time.Since(w.began) > judgedOver })
	p.trimAt = max(minTrim, 2*len(p.accounts))
}

func accountKey(app, run string, p pb.Platform) []byte {
	return schemas.Key(app, run, schemas.PlatformName(p))
}

// settle tells the launcher that a platform's part of a run is over. Its id is always the same, so that the launcher
// carries it out once.
func settle(a *pb.Account, at time.Time) stream.Output {
	value, err := proto.Marshal(&pb.Command{
		Id:       "settle/" + a.GetRun() + "/" + schemas.PlatformName(a.GetPlatform()),
		App:      a.GetApp(),
		Campaign: a.GetRun(),
		At:       at.UnixMilli(),
		Kind:     &pb.Command_Settle{Settle: &pb.Settle{Platform: a.GetPlatform()}},
	})
	if err != nil {
		// As in encode.
		panic("ledger: encode settle: " + err.Error())
	}
	return stream.Output{Topic: schemas.TopicCommands, Key: schemas.Key(a.GetApp(), a.GetRun()), Value: value}
}
