package producer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/letters"
	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Selector says which dead letters, or past deliveries, are meant. All that is given must agree; one of a list is enough.
type Selector struct {
	Platforms []string  `json:"platforms,omitempty" query:"platform" enum:"apns,fcm,webpush" doc:"Left out: all"`
	Classes   []string  `json:"classes,omitempty" query:"class" enum:"urgent,bulk"`
	Campaigns []string  `json:"campaigns,omitempty" query:"campaign" maxItems:"100" doc:"Their ids; ~messages and ~rule.NAME are the messages of the API and of a rule"`
	Origins   []string  `json:"origins,omitempty" query:"origin" maxItems:"100" doc:"Hosts of web push endpoints, or a domain above them; production or sandbox for APNs"`
	Reasons   []string  `json:"reasons,omitempty" query:"reason" maxItems:"100" doc:"Such as exhausted; 4xx and 5xx mean the codes of that class"`
	Codes     []string  `json:"codes,omitempty" query:"code" maxItems:"100" doc:"Such as 503"`
	Since     time.Time `json:"since,omitzero" query:"since" doc:"Ended then or later"`
	Until     time.Time `json:"until,omitzero" query:"until" doc:"Ended before that"`
	Offsets   []string  `json:"offsets,omitempty" query:"offsets" maxItems:"100" doc:"TOPIC:PARTITION:FIRST-LAST, such as dead.webpush:0:100-200"`
}

// proto is the filter that the selector describes.
func (s *Selector) proto() (*pb.ReplayFilter, message.Problems) {
	f := &pb.ReplayFilter{Runs: s.Campaigns, Origins: s.Origins, Reasons: s.Reasons, Codes: s.Codes}
	var problems message.Problems
	for _, name := range s.Platforms {
		p, _ := schemas.ParsePlatform(name) // the schema's enum has made sure of it
		f.Platforms = append(f.Platforms, p)
	}
	for _, name := range s.Classes {
		for _, c := range schemas.Classes {
			if schemas.ClassName(c) == name {
				f.Classes = append(f.Classes, c)
			}
		}
	}
	if !s.Since.IsZero() {
		f.Since = s.Since.UnixMilli()
	}
	if !s.Until.IsZero() {
		f.Until = s.Until.UnixMilli()
	}
	if f.Until != 0 && f.Until <= f.Since {
		problems = append(problems, message.Problem{Field: "until", Text: "is not after since"})
	}
	for i, text := range s.Offsets {
		r, err := parseRange(text)
		if err != nil {
			problems = append(problems, message.Problem{Field: fmt.Sprintf("offsets[%d]", i), Text: err.Error()})
			continue
		}
		f.Offsets = append(f.Offsets, r)
	}
	return f, problems
}

// parseRange reads TOPIC:PARTITION:FIRST-LAST.
func parseRange(text string) (*pb.TopicRange, error) {
	parts := strings.Split(text, ":")
	if len(parts) == 3 {
		first, last, _ := strings.Cut(parts[2], "-")
		partition, err1 := strconv.ParseInt(parts[1], 10, 32)
		from, err2 := strconv.ParseInt(first, 10, 62)
		to, err3 := strconv.ParseInt(last, 10, 62)
		if errors.Join(err1, err2, err3) == nil && partition >= 0 && from >= 0 && from <= to {
			return &pb.TopicRange{Topic: parts[0], Partition: int32(partition), Next: from, End: to + 1}, nil
		}
	}
	return nil, errors.New("must be TOPIC:PARTITION:FIRST-LAST, such as dead.webpush:0:100-200")
}

// selectorOf is the selector that a filter was made of.
func selectorOf(f *pb.ReplayFilter) Selector {
	s := Selector{Campaigns: f.GetRuns(), Origins: f.GetOrigins(), Reasons: f.GetReasons(), Codes: f.GetCodes()}
	for _, p := range f.GetPlatforms() {
		s.Platforms = append(s.Platforms, schemas.PlatformName(p))
	}
	for _, c := range f.GetClasses() {
		s.Classes = append(s.Classes, schemas.ClassName(c))
	}
	if f.GetSince() != 0 {
		s.Since = time.UnixMilli(f.GetSince()).UTC()
	}
	if f.GetUntil() != 0 {
		s.Until = time.UnixMilli(f.GetUntil()).UTC()
	}
	for _, r := range f.GetOffsets() {
		s.Offsets = append(s.Offsets, fmt.Sprintf("%s:%d:%d-%d", r.Topic, r.Partition, r.Next, r.End-1))
	}
	return s
}

// Histogram is how many are meant, and what a replay would do with them.
type Histogram struct {
	Tally
	Complete bool  `json:"complete" doc:"False when it took too long: these are not all. Narrow it by time, platform or offsets"`
	Bars     []Bar `json:"bars" doc:"The largest first"`
}

// Tally counts.
type Tally struct {
	Count      uint64 `json:"count"`
	Send       uint64 `json:"send" doc:"A replay would send them"`
	Expired    uint64 `json:"expired" doc:"What has expired stays so"`
	Replayed   uint64 `json:"replayed" doc:"Sent again before"`
	Unreadable uint64 `json:"unreadable" doc:"Hold no whole delivery"`
}

// Bar counts what is alike.
type Bar struct {
	Platform string `json:"platform,omitempty"`
	Campaign string `json:"campaign,omitempty"`
	Origin   string `json:"origin,omitempty"`
	Reason   string `json:"reason"`
	Code     string `json:"code,omitempty"`
	Tally
	Oldest time.Time `json:"oldest"`
	Newest time.Time `json:"newest"`
}

// countTimeout bounds a histogram, within what a client waits for an answer.
const countTimeout = 20 * time.Second

// countTurn is how many records are read before the time is looked at.
const countTurn = 5000

// count tells what a replay would do, and writes nothing. It also counts, of source dead and without platforms, what lies
// on the other topics of dead letters, which nobody can send again.
func (s *Server) count(ctx context.Context, r *pb.Replay) (*Histogram, error) {
	limited, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	h := letters.Histogram{}
	var err error
	for _, p := range letters.Platforms(r) {
		if err == nil {
			err = s.countPlatform(limited, r, p, h)
		}
	}
	if err == nil && r.Source == pb.ReplaySource_REPLAY_SOURCE_DEAD && len(r.Filter.GetPlatforms()) == 0 {
		err = s.countOthers(limited, r, h)
	}
	out := &Histogram{Complete: err == nil, Bars: []Bar{}}
	switch {
	case err == nil || ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
	case errors.Is(err, letters.ErrTooMany) || errors.Is(err, letters.ErrFull):
		return nil, invalid("", err)
	default:
		return nil, s.readProblem(err)
	}
	for _, t := range h.Sorted() {
		tally := Tally{t.Count, t.Send, t.Expired, t.Replayed, t.Unreadable}
		out.add(tally)
		out.Bars = append(out.Bars, Bar{
			schemas.PlatformName(t.Platform), t.Run, t.Origin, t.Reason, t.Code, tally,
			time.UnixMilli(t.Oldest).UTC(), time.UnixMilli(t.Newest).UTC(),
		})
	}
	return out, nil
}

func (t *Tally) add(o Tally) {
	t.Count += o.Count
	t.Send += o.Send
	t.Expired += o.Expired
	t.Replayed += o.Replayed
	t.Unreadable += o.Unreadable
}

func (s *Server) countPlatform(ctx context.Context, r *pb.Replay, p pb.Platform, h letters.Histogram) error {
	from, err := letters.Begin(ctx, s.options.Kafka, r, p, s.now())
	if err != nil {
		return err
	}
	selection, err := letters.Select(ctx, s.options.Kafka, r, p, from, s.replays.histories[p], s.now)
	if err != nil {
		return err
	}
	defer selection.Close()
	for !selection.Done() {
		found, _, err := selection.Next(ctx, countTurn)
		if err != nil {
			return err
		}
		for _, f := range found {
			h.Add(f.Facts, f.Verdict)
		}
	}
	return nil
}

func (s *Server) countOthers(ctx context.Context, r *pb.Replay, h letters.Histogram) error {
	ranges, err := letters.Span(ctx, s.options.Kafka, r.Filter.GetSince(), otherDead()...)
	if err != nil {
		return err
	}
	return letters.Scan(ctx, s.options.Kafka, ranges, func(record *kgo.Record) bool {
		l := letters.Read(s.bare(record.Topic), record)
		if l.App() == r.App && letters.Match(r.Filter, l.Facts()) {
			h.Add(l.Facts(), letters.Unreadable)
		}
		return true
	})
}

// otherDead are the topics of dead letters that belong to no platform.
func otherDead() []string {
	var topics []string
	for _, t := range letters.DeadTopics() {
		if _, of := schemas.ParsePlatform(strings.TrimPrefix(t, "dead.")); !of {
			topics = append(topics, t)
		}
	}
	return topics
}

func (s *Server) bare(topic string) string { return strings.TrimPrefix(topic, s.options.Kafka.Prefix) }

// readProblem is what a call is told whose records could not be read.
func (s *Server) readProblem(err error) error {
	if !errors.Is(err, context.Canceled) {
		s.log.Warn("dead letters could not be read", "err", err)
	}
	return unavailable("Kafka did not let it be read in time. Wait as Retry-After says and try again.")
}
