package ledger

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/control"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// AutoPause says when an app's campaign is paused by itself: of at least so many outcomes on a platform within a minute,
// more than so many percent say that the message is wrong, or that the provider does not know the device. 0 means the
// default of either.
type AutoPause struct {
	Outcomes int
	Percent  float64
}

const (
	defaultOutcomes = 100
	defaultPercent  = 50
	// judgedOver is how long outcomes count together.
	judgedOver = time.Minute
	// quietFor is how long a run is not judged after a pause: what was in flight still comes in.
	quietFor = 10 * time.Second
)

// guard watches the outcomes of one platform for what no single one shows: a message that is wrong for everybody, and a
// provider that knows none of an app's devices, which is a wrong environment or credential far more often than a thousand
// people who left at once. Then it pauses the campaign, and keeps hygiene from emptying the registry.
type guard struct {
	platform  pb.Platform
	autoPause map[string]AutoPause
	control   *control.View
	log       *slog.Logger

	mu sync.Mutex
	// stopped are apps whose hygiene this process has stopped, until the view shows it.
	stopped map[string]time.Time
}

// window is what a run's outcomes were lately.
type window struct {
	began time.Time
	// Of the answers, those that say the message is wrong, and those that say the device is.
	answers, message, device int
	// code is the last of either's.
	code  string
	quiet time.Time
}

func newGuard(p pb.Platform, o Options, view *control.View) *guard {
	return &guard{platform: p, autoPause: o.AutoPause, control: view, log: o.Kafka.Log, stopped: map[string]time.Time{}}
}

// add enters a batch's outcomes.
func (w *window) add(batch *pb.ResultBatch, now time.Time) {
	if now.Sub(w.began) > judgedOver {
		*w = window{began: now, quiet: w.quiet}
	}
	for _, r := range batch.GetResults() {
		switch r.GetOutcome() {
		case pb.Outcome_OUTCOME_ACCEPTED:
		case pb.Outcome_OUTCOME_REJECTED, pb.Outcome_OUTCOME_UNREGISTERED:
			w.code = r.GetCode()
			if r.GetMessage() {
				w.message++
			} else {
				w.device++
			}
		default:
			continue // Belfry's own word, not an answer
		}
		w.answers++
	}
}

// judge enters a batch into a run's window, notes in its account when it has paused the campaign, and returns what is to be
// done about it.
func (g *guard) judge(w *window, a *pb.Account, batch *pb.ResultBatch, t *stream.Task) []stream.Output {
	if a.GetAutoPaused() {
		return nil
	}
	app, run := a.GetApp(), a.GetRun()
	w.add(batch, t.Timestamp)
	limits := g.autoPause[app]
	if limits.Outcomes == 0 {
		limits.Outcomes = defaultOutcomes
	}
	if limits.Percent == 0 {
		limits.Percent = defaultPercent
	}
	most := limits.Percent / 100 * float64(w.answers)
	what := ""
	switch {
	case w.answers < limits.Outcomes || t.Timestamp.Before(w.quiet):
		return nil
	case float64(w.message) > most:
		what = fmt.Sprintf("%d of the last %d outcomes on %s say that the message is wrong (%s)",
			w.message, w.answers, schemas.PlatformName(g.platform), w.code)
	case float64(w.device) > most:
		what = fmt.Sprintf("%d of the last %d outcomes on %s say that there is no such device (%s)",
			w.device, w.answers, schemas.PlatformName(g.platform), w.code)
	default:
		return nil
	}
	devices := float64(w.device) > most
	*w = window{began: t.Timestamp, quiet: t.Timestamp.Add(quietFor)}
	var outs []stream.Output
	if devices {
		outs = g.stopHygiene(app, what, t.Timestamp)
	}
	if !strings.HasPrefix(run, "~") {
		a.AutoPaused = true
		g.log.Error("campaign is paused by itself; belfry campaign resume goes on", "campaign", app+"/"+run, "reason", what)
		outs = append(outs, pause(app, run, "paused by itself: "+what, t))
	}
	return outs
}

// pause asks the launcher to pause a run. Its id says where the outcome lay that decided it, so that it is the same command
// when that is counted again.
func pause(app, run, reason string, t *stream.Task) stream.Output {
	value, err := proto.Marshal(&pb.Command{
		Id:       strings.Join([]string{"pause", t.Topic, strconv.Itoa(int(t.Partition)), strconv.FormatInt(t.Offset, 10)}, "/"),
		App:      app,
		Campaign: run,
		At:       t.Timestamp.UnixMilli(),
		Kind:     &pb.Command_Pause{Pause: &pb.Pause{Reason: reason}},
	})
	if err != nil {
		panic("ledger: encode pause: " + err.Error()) // as in encode
	}
	return stream.Output{Topic: schemas.TopicCommands, Key: schemas.Key(app, run), Value: value}
}

// stopHygiene keeps an app's devices on the platform in the registry until somebody has looked.
func (g *guard) stopHygiene(app, reason string, at time.Time) []stream.Output {
	name := control.Hygiene(g.platform, app)
	if g.control.Get(name).GetPaused() {
		return nil
	}
	g.log.Error("devices are not removed any more: either all of the app's devices are gone at once, or its environment or credential is wrong. "+
		"Look, then lift it: belfry hygiene resume", "name", string(name), "reason", reason)
	g.mu.Lock()
	g.stopped[app] = time.Now()
	g.mu.Unlock()
	value, err := control.Record(&pb.Restraint{Paused: true, Reason: reason, By: "ledger", At: at.UnixMilli()})
	if err != nil {
		panic("ledger: encode restraint: " + err.Error()) // as in encode
	}
	return []stream.Output{{Topic: schemas.TopicControl, Key: []byte(name), Value: value}}
}

// hygienic says whether an app's devices may be removed.
func (g *guard) hygienic(app string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if at, ok := g.stopped[app]; ok {
		if time.Since(at) < quietFor {
			return false
		}
		delete(g.stopped, app)
	}
	return !g.control.Get(control.Hygiene(g.platform, app)).GetPaused()
}
