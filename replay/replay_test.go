package replay_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/replay"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

func TestDeadLettersGoOutAgainAsNew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	urgent := func(d *pb.Delivery) { d.Class, d.Run = pb.Class_CLASS_URGENT, schemas.RunMessages }
	w.bury(fcm,
		letter(delivery("c", "a")), letter(delivery("c", "b")), letter(delivery("c", "late", expired)),
		letter(delivery("m", "now", urgent)),
		&pb.DeadLetter{Raw: []byte("?"), Reason: "undecodable"},
		letter(delivery("c", "foreign", func(d *pb.Delivery) { d.App = "news" })),
		letter(delivery("c", "half", func(d *pb.Delivery) { d.Target = nil })),
	)
	w.bury(webpush, letter(delivery("c", "w", onWebPush("web.push.apple.com"))))
	streamtest.Run(t, replay.New(w.k).Run)
	w.ask(&pb.Replay{Id: "r1"})

	ended := w.ended("r1", schemas.Platforms...)
	want := &pb.ReplayProgress{
		State: pb.ReplayState_REPLAY_STATE_FINISHED, Read: 7, Matched: 6, Sent: 3, Expired: 1, Unreadable: 2,
	}
	got := proto.CloneOf(ended[fcm])
	got.StartedAt, got.At = 0, 0
	if !proto.Equal(got, want) || ended[fcm].At < ended[fcm].StartedAt || ended[fcm].StartedAt == 0 {
		t.Errorf("got %v, want %v", ended[fcm], want)
	}
	if ended[webpush].Sent != 1 || ended[pb.Platform_PLATFORM_APNS].Matched != 0 {
		t.Errorf("got %v", ended)
	}
	sent := w.sent(fcm, bulk)
	a := delivery("c", "a")
	if len(sent) != 2 || len(sent[string(a.Id)]) != 1 {
		t.Fatalf("%d deliveries: %v", len(sent), sent)
	}
	again := sent[string(a.Id)][0]
	if again.Attempt != 0 || again.DueAt != 0 || again.LastCode != "replay" || again.Replay != "r1" || again.Target.GetFcm().GetToken() != "t-a" {
		t.Errorf("sent again as %v", again)
	}
	if n := len(w.sent(fcm, pb.Class_CLASS_URGENT)); n != 1 {
		t.Errorf("%d urgent deliveries, want 1", n)
	}
	books := w.replayed(fcm)
	if books["shop/c"].GetDead() != 2 || books["shop/~messages"].GetDead() != 1 || len(books) != 2 {
		t.Errorf("accounts are told %v", books)
	}
}

// I11: what was sent again is not sent again by another replay, whoever runs it, nor by one that is asked for twice.
func TestTheSameReplayTwiceSendsOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 300 {
		w.bury(fcm, letter(delivery("c", fmt.Sprint("d", i))))
	}
	run := func(id string, twice bool) *pb.ReplayProgress {
		t.Run(id, func(t *testing.T) {
			streamtest.Run(t, replay.New(w.k).Run)
			r := w.ask(&pb.Replay{Id: id})
			if twice {
				w.ask(r)
			}
			w.one(id)
		})
		return w.one(id)
	}
	if p := run("r1", true); p.Sent != 300 || p.Replayed != 0 {
		t.Errorf("the first: %v", p)
	}
	// One that died once more is another letter.
	w.bury(fcm, letter(delivery("c", "d7", func(d *pb.Delivery) { d.Replay = "r1" })))
	if p := run("r2", false); p.Sent != 1 || p.Replayed != 300 {
		t.Errorf("the second: %v", p)
	}
	total := 0
	for id, ds := range w.sent(fcm, bulk) {
		total += len(ds)
		if seven := delivery("c", "d7"); len(ds) != 1 && id != string(seven.Id) {
			t.Errorf("%s was sent %d times", ds[0].Device, len(ds))
		}
	}
	if total != 301 {
		t.Errorf("%d deliveries, want 301", total)
	}
	if n := w.replayed(fcm)["shop/c"].GetDead(); n != 301 {
		t.Errorf("the account is told of %d", n)
	}
}

// Two that run at once share what they mean between them.
func TestReplaysAtOnceSendOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var all []*pb.DeadLetter
	for i := range 2000 {
		all = append(all, letter(delivery("c", fmt.Sprint("d", i))))
	}
	w.bury(fcm, all...)
	streamtest.Run(t, replay.New(w.k).Run)
	for _, id := range []string{"r1", "r2", "r3"} {
		w.ask(&pb.Replay{Id: id, Rate: 1000})
	}
	var sent, before uint64
	for _, id := range []string{"r1", "r2", "r3"} {
		p := w.one(id)
		sent, before = sent+p.Sent, before+p.Replayed
	}
	if sent != 2000 || before != 4000 || len(w.sent(fcm, bulk)) != 2000 {
		t.Errorf("%d sent, %d skipped", sent, before)
	}
	for _, ds := range w.sent(fcm, bulk) {
		if len(ds) != 1 {
			t.Fatalf("%s was sent %d times", ds[0].Device, len(ds))
		}
	}
}

func TestPauseResumeCancel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var all []*pb.DeadLetter
	for i := range 1000 {
		all = append(all, letter(delivery("c", fmt.Sprint("d", i))))
	}
	w.bury(fcm, all...)
	streamtest.Run(t, replay.New(w.k).Run)
	paused := w.ask(&pb.Replay{Id: "paused", Wish: pb.ReplayWish_REPLAY_WISH_PAUSE})
	slow := w.ask(&pb.Replay{Id: "slow", Rate: 2})
	streamtest.Read(t, w.k, func(*kgo.Record) bool { return false }, schemas.TopicSend(fcm, bulk))
	slow.Wish = pb.ReplayWish_REPLAY_WISH_CANCEL
	w.want(slow)
	p := w.one("slow")
	if p.State != pb.ReplayState_REPLAY_STATE_CANCELLED || p.Sent == 0 || p.Sent > 500 {
		t.Errorf("cancelled: %v", p)
	}
	if n := len(w.sent(fcm, bulk)); n != int(p.Sent) {
		t.Errorf("%d were sent while one was paused and the other counts %d", n, p.Sent)
	}
	paused.Wish = pb.ReplayWish_REPLAY_WISH_RUN
	w.want(paused)
	if q := w.one("paused"); q.Sent != 1000-p.Sent || q.Replayed != p.Sent {
		t.Errorf("resumed: %v", q)
	}
}

// No more than the rate lets go, beyond the half second of a step.
func TestRateIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var all []*pb.DeadLetter
	for i := range 100 {
		all = append(all, letter(delivery("c", fmt.Sprint("d", i))))
	}
	w.bury(fcm, all...)
	begun := time.Now()
	streamtest.Run(t, replay.New(w.k).Run)
	w.ask(&pb.Replay{Id: "r", Rate: 50})
	p := w.one("r")
	if most := 50*time.Since(begun).Seconds() + 25; p.Sent != 100 || float64(p.Sent) > most {
		t.Errorf("%d were sent where %.0f may be", p.Sent, most)
	}
}

func TestSendTopicsAreReplayedOnlyAsAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now := time.Now()
	long := now.Add(-time.Hour).UnixMilli()
	ends := map[string]*pb.Result{
		"accepted": {Outcome: pb.Outcome_OUTCOME_ACCEPTED, At: now.UnixMilli()},
		"before":   {Outcome: pb.Outcome_OUTCOME_ACCEPTED, At: long},
		"rejected": {Outcome: pb.Outcome_OUTCOME_REJECTED, Code: "BadTopic", At: now.UnixMilli()},
		"dead":     {Outcome: pb.Outcome_OUTCOME_DEAD, Code: "503", At: now.UnixMilli()},
		"gone":     {Outcome: pb.Outcome_OUTCOME_UNREGISTERED, At: now.UnixMilli()},
		"pending":  {Outcome: pb.Outcome_OUTCOME_DEFERRED, At: now.UnixMilli()},
	}
	batch := []byte{}
	for device, r := range ends {
		d := delivery("c", device)
		r.Delivery = d.Id
		batch = schemas.AppendResult(batch, r)
		w.put(schemas.TopicSend(fcm, bulk), schemas.DeviceKey("shop", device), d)
		w.put(schemas.TopicSend(fcm, bulk), schemas.DeviceKey("shop", device), d) // it came back from a retry topic
	}
	streamtest.Produce(t, w.k, &kgo.Record{Topic: schemas.TopicResults(fcm), Key: []byte("shop/c"), Value: batch})
	streamtest.Run(t, replay.New(w.k).Run)
	filter := &pb.ReplayFilter{Since: now.Add(-time.Minute).UnixMilli()}
	for _, c := range []struct {
		id       string
		accepted bool
		sent     uint64
		again    uint64
	}{{"r1", false, 1, 0}, {"r2", true, 1, 1}, {"r3", true, 0, 2}} {
		w.ask(&pb.Replay{Id: c.id, Source: pb.ReplaySource_REPLAY_SOURCE_SEND, Filter: filter, IncludeAccepted: c.accepted})
		if p := w.one(c.id); p.Sent != c.sent || p.Replayed != c.again || p.State != pb.ReplayState_REPLAY_STATE_FINISHED {
			t.Errorf("%s: %v", c.id, p)
		}
	}
	again := map[string]string{}
	for id, ds := range w.sent(fcm, bulk) {
		if ds[0].Replay != "" {
			again[ds[0].Device] = ds[0].Replay
			if d := delivery("c", ds[0].Device); id == string(d.Id) || len(ds) != 1 {
				t.Errorf("%s: %d under id %x", ds[0].Device, len(ds), id)
			}
		}
	}
	if len(again) != 2 || again["rejected"] != "r1" || again["accepted"] != "r2" {
		t.Errorf("sent again: %v", again)
	}
	if books := w.replayed(fcm)["shop/c"]; books.GetPlanned() != 2 || books.GetDead() != 0 {
		t.Errorf("the account is told %v", books)
	}
}

// I13: what is no step ends in dead once, and others go on.
func TestForeignRecordsEndInDead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	streamtest.Produce(t, w.k, &kgo.Record{Topic: schemas.TopicReplays(fcm), Key: []byte("x"), Value: []byte("?")})
	w.put(schemas.TopicReplays(fcm), []byte("shop/nobody"), &pb.ReplayStep{App: "shop", Id: "nobody"})
	w.bury(webpush, letter(delivery("c", "w", onWebPush("web.push.apple.com"))))
	streamtest.Run(t, replay.New(w.k).Run)
	w.ask(&pb.Replay{Id: "r"})
	if p := w.ended("r", fcm, webpush); p[webpush].Sent != 1 {
		t.Errorf("got %v", p)
	}
	reasons := map[string]int{}
	for _, r := range w.all(schemas.TopicDead(fcm)) {
		l := &pb.DeadLetter{}
		if err := proto.Unmarshal(r.Value, l); err != nil {
			t.Fatal(err)
		}
		reasons[l.Reason]++
	}
	if len(reasons) != 2 || reasons["undecodable"] != 1 || reasons["unknown-replay"] != 1 {
		t.Errorf("got %v", reasons)
	}
}
