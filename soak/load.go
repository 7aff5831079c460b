package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/schemas"
)

// load is what a deployment goes through on a busy day: campaigns one after another, some paused or cancelled, one-time
// codes, devices that register again, replays of what died, and now and then a record that nobody can read. Calls are
// repeated with their idempotency key until they are answered, as the API asks for.
type load struct {
	w   *world
	ttl time.Duration

	mu        sync.Mutex // guards all below
	campaigns map[string]*campaign
	messages  int               // calls answered with 202
	promised  int               // their deliveries
	repeated  int               // calls that had to be sent more than once
	devices   int               // registrations answered
	garbage   int               // unreadable records, on each platform's bulk topic
	replayed  map[string]string // the ids of replays, by their idempotency keys
	strange   []string
}

// campaign is one that was launched.
type campaign struct {
	id        string
	asked     time.Time // when it was asked to be cancelled
	cancelled time.Time // when that was acknowledged
	ended     bool
}

const (
	// campaignsAtOnce bounds the backlog while much is broken.
	campaignsAtOnce = 5
	campaignEvery   = 2 * time.Second
	messageEvery    = 100 * time.Millisecond
	deviceEvery     = 200 * time.Millisecond
	garbageEvery    = 10 * time.Second
)

func newLoad(w *world, ttl time.Duration) *load {
	return &load{w: w, ttl: ttl, campaigns: map[string]*campaign{}, replayed: map[string]string{}}
}

// run makes load until brief ends. Calls that have no answer by then are repeated until ctx ends: it returns when all
// are answered.
func (l *load) run(ctx, brief context.Context) {
	var wg sync.WaitGroup
	calls := make(chan struct{}, 16)
	every := func(d time.Duration, do func(n int)) {
		wg.Go(func() {
			tick := time.NewTicker(d)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-brief.Done():
					return
				case <-tick.C:
				}
				select {
				case calls <- struct{}{}:
					wg.Go(func() {
						defer func() { <-calls }()
						do(n)
					})
				default: // enough wait for an answer
				}
			}
		})
	}
	devices := l.registrations()
	every(messageEvery, func(n int) { l.message(ctx, n) })
	every(deviceEvery, func(int) { l.device(ctx, devices[rand.IntN(len(devices))]) })
	every(garbageEvery, func(int) { l.spoil(ctx) })
	wg.Go(func() { l.launch(ctx, brief, &wg) })
	wg.Go(func() { l.replays(ctx, brief) })
	wg.Wait()
}

// repeat calls until there is an answer that is not "later".
func (l *load) repeat(ctx context.Context, method, path, key string, body any) (int, []byte) {
	for try := 1; ; try++ {
		status, answer, err := l.w.call(ctx, method, path, key, body)
		if err == nil && status != http.StatusTooManyRequests && status < 500 && (status != http.StatusConflict || !strings.Contains(string(answer), "idempotency-running")) {
			if try > 1 {
				l.mu.Lock()
				l.repeated++
				l.mu.Unlock()
			}
			return status, answer
		}
		select {
		case <-ctx.Done():
			return 0, nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// unexpected notes an answer that no fault explains.
func (l *load) unexpected(what string, status int, answer []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.strange) < 10 {
		l.strange = append(l.strange, fmt.Sprintf("%s: %d %s", what, status, answer))
	}
}

func (l *load) message(ctx context.Context, n int) {
	l.send(ctx, fmt.Sprintf("m-%06d", n), fmt.Sprintf("d-%06d", rand.IntN(l.w.devices)))
}

// send sends one device a message, and returns its delivery's id, if it was taken.
func (l *load) send(ctx context.Context, key, device string) (id [16]byte, taken bool) {
	status, answer := l.repeat(ctx, http.MethodPost, "/v1/messages", key, map[string]any{
		"to":      map[string]string{"device": device},
		"message": map[string]string{"title": "Your code", "body": "{{ data.code }}", "ttl": l.ttl.String()},
		"data":    map[string]string{"code": key},
	})
	var reply producer.MessageAnswer
	if status != http.StatusAccepted || json.Unmarshal(answer, &reply) != nil {
		if status != 0 {
			l.unexpected("message", status, answer)
		}
		return id, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages++
	for _, d := range reply.Deliveries {
		l.promised += d
	}
	return schemas.DeliveryID("demo", reply.ID, device, 0), len(reply.Deliveries) > 0
}

// registrations are the devices as they were imported.
func (l *load) registrations() (all []map[string]any) {
	b, err := os.ReadFile(filepath.Join(l.w.dir, "sim", "demo", "devices.ndjson"))
	if err != nil {
		panic(err) // they were imported from it
	}
	for line := range strings.Lines(string(b)) {
		var d map[string]any
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			panic(err)
		}
		all = append(all, d)
	}
	return all
}

func (l *load) device(ctx context.Context, d map[string]any) {
	body := map[string]any{}
	for k, v := range d {
		if k != "id" && k != "op" {
			body[k] = v
		}
	}
	status, answer := l.repeat(ctx, http.MethodPut, fmt.Sprint("/v1/devices/", d["id"]), "", body)
	switch status {
	case http.StatusAccepted:
		l.mu.Lock()
		l.devices++
		l.mu.Unlock()
	case 0:
	default:
		l.unexpected("device", status, answer)
	}
}

// spoil writes a record that is no delivery to each bulk topic.
func (l *load) spoil(ctx context.Context) {
	client, err := l.w.cluster().Client()
	if err != nil {
		return
	}
	defer client.Close()
	for _, p := range schemas.Platforms {
		topic := l.w.cluster().Topic(schemas.TopicSend(p, 2))
		r := &kgo.Record{Topic: topic, Key: []byte("demo/nobody"), Value: []byte("\xffno delivery")}
		if err := client.ProduceSync(ctx, r).FirstErr(); err != nil {
			return
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.garbage++
}

// launch starts campaigns while few are under way.
func (l *load) launch(ctx, brief context.Context, wg *sync.WaitGroup) {
	for n := 0; ; {
		select {
		case <-brief.Done():
			return
		case <-time.After(campaignEvery):
		}
		if l.underWay() < campaignsAtOnce {
			n++
			l.campaign(ctx, n, wg)
		}
	}
}

func (l *load) campaign(ctx context.Context, n int, wg *sync.WaitGroup) {
	c := &campaign{id: fmt.Sprintf("c-%04d", n)}
	status, answer := l.repeat(ctx, http.MethodPost, "/v1/campaigns", c.id, map[string]any{
		"id": c.id, "launch": true, "audience": map[string]bool{"everyone": true},
		"message": map[string]string{"title": "Hello", "body": "By {{ device.platform }}", "ttl": l.ttl.String(), "on_unknown": onUnknown(n)},
	})
	switch {
	case status == 0:
		return
	case status >= 300:
		l.unexpected("campaign", status, answer)
		return
	}
	l.mu.Lock()
	l.campaigns[c.id] = c
	l.mu.Unlock()
	wg.Go(func() { l.meddle(ctx, c, n) })
}

// onUnknown has every other campaign drop what a provider did not answer: that is dead, and a replay's business.
func onUnknown(n int) string {
	if n%2 == 1 {
		return "drop"
	}
	return "resend"
}

// meddle pauses every fifth campaign for a moment, and cancels every seventh. An answer of 202 says that it is on Kafka and
// will be done, before whatever is asked for next.
func (l *load) meddle(ctx context.Context, c *campaign, n int) {
	if n%5 == 0 {
		if status := l.act(ctx, c, "pause"); status == http.StatusOK || status == http.StatusAccepted {
			l.act(ctx, c, "resume")
		}
	}
	if n%7 != 0 {
		return
	}
	l.mu.Lock()
	c.asked = time.Now()
	l.mu.Unlock()
	if l.act(ctx, c, "cancel") == http.StatusOK {
		l.mu.Lock()
		c.cancelled = time.Now()
		l.mu.Unlock()
	}
}

// act asks for an action a second later, and returns what was answered, 0 for nothing.
func (l *load) act(ctx context.Context, c *campaign, action string) int {
	select {
	case <-ctx.Done():
		return 0
	case <-time.After(time.Second):
	}
	path, key := "/v1/campaigns/"+c.id+"/"+action, c.id+"/"+action
	status, answer := l.repeat(ctx, http.MethodPost, path, key, nil)
	for status == http.StatusNotFound && ctx.Err() == nil { // it was created with 202, and is not decided yet
		time.Sleep(time.Second)
		status, answer = l.repeat(ctx, http.MethodPost, path, key, nil)
	}
	if status >= 300 && status != http.StatusConflict { // it may be over
		l.unexpected(action, status, answer)
	}
	return status
}

// underWay counts the campaigns that are not over, as far as the API tells now.
func (l *load) underWay() (n int) {
	l.mu.Lock()
	var open []*campaign
	for _, c := range l.campaigns {
		if !c.ended {
			open = append(open, c)
		}
	}
	l.mu.Unlock()
	for _, c := range open {
		var p producer.Progress
		status, answer, err := l.w.call(context.Background(), http.MethodGet, "/v1/campaigns/"+c.id+"/progress", "", nil)
		if err != nil || status != http.StatusOK || json.Unmarshal(answer, &p) != nil || p.Pending != 0 || p.State == "running" || p.State == "paused" || p.State == "scheduled" {
			n++
			continue
		}
		l.mu.Lock()
		c.ended = true
		l.mu.Unlock()
	}
	return n
}
