package producer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/letters"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

const (
	// maxScans bounds the calls that read topics at the same time, half of them for one app: each may hold some 10 MB, and of
	// source send 100 MB. The next waits for scanPatience.
	maxScans     = 6
	scanPatience = 5 * time.Second
	// scanTimeout is how long a page of letters is looked for before it ends early.
	scanTimeout = 10 * time.Second
)

// DeadLetter is what became of a delivery, or of another record, that was given up. Tokens and payloads are not shown.
type DeadLetter struct {
	Topic     string    `json:"topic" doc:"Where it lies, with partition and offset"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Platform  string    `json:"platform,omitempty"`
	Class     string    `json:"class,omitempty"`
	Campaign  string    `json:"campaign,omitempty"`
	Device    string    `json:"device,omitempty"`
	Delivery  string    `json:"delivery,omitempty" doc:"Its id, which was the apns-id too"`
	Origin    string    `json:"origin,omitempty" doc:"The host of its web push endpoint, or APNs' environment"`
	Reason    string    `json:"reason" doc:"exhausted, unknown, unknown-run, undecodable, oversize, ..."`
	Code      string    `json:"code,omitempty" doc:"The provider's last word"`
	Detail    string    `json:"detail,omitempty"`
	Attempts  uint32    `json:"attempts"`
	FirstAt   time.Time `json:"first_at,omitzero" doc:"When it was tried first"`
	At        time.Time `json:"at" doc:"When it was given up"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	Replayed  bool      `json:"replayed" doc:"It was sent again"`
	Replay    string    `json:"replay,omitempty" doc:"The replay that had sent it before it died this time"`
	Source    string    `json:"source,omitempty" doc:"TOPIC:PARTITION:OFFSET of the record that ended so"`
	RawBytes  int       `json:"raw_bytes,omitempty" doc:"How large the record was that could not be read; at most 64 KiB of it are kept"`
}

func (s *Server) letterForm(l *letters.Letter) DeadLetter {
	d := l.Delivery
	form := DeadLetter{
		Topic: l.Topic, Partition: l.Partition, Offset: l.Offset,
		Platform: schemas.PlatformName(l.Platform()), Class: schemas.ClassName(d.GetClass()),
		Campaign: d.GetRun(), Device: d.GetDevice(), Origin: letters.Origin(d.GetTarget()),
		Reason: l.Reason, Code: l.Code, Detail: l.Detail, Attempts: l.Attempts,
		At: time.UnixMilli(l.LastAt).UTC(), Replay: d.GetReplay(), RawBytes: len(l.Raw),
	}
	if id := d.GetId(); len(id) == 16 {
		form.Delivery = fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	}
	if l.FirstAt != 0 {
		form.FirstAt = time.UnixMilli(l.FirstAt).UTC()
	}
	if d.GetExpiresAt() != 0 {
		form.ExpiresAt = time.UnixMilli(d.GetExpiresAt()).UTC()
	}
	if l.Source != nil {
		form.Source = fmt.Sprintf("%s:%d:%d", l.Source.Topic, l.Source.Partition, l.Source.Offset)
	}
	if h := s.replays.histories[l.Platform()]; h != nil {
		form.Replayed = h.HasLetter(l)
	}
	return form
}

type deadInput struct {
	Selector
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	After string `query:"after" doc:"Where the last page ended: its next"`
}

type deadOutput struct{ Body DeadList }

// DeadList is one page of dead letters: by topic and partition, and in those the oldest first.
type DeadList struct {
	Letters []DeadLetter `json:"letters"`
	Next    string       `json:"next,omitempty" doc:"Send it as after for the next page. A page may be short, or empty, and yet not the last one"`
}

// LetterPath says where a dead letter lies. It is exported because huma fills no others.
type LetterPath struct {
	Topic     string `path:"topic" doc:"Such as dead.webpush" pattern:"^dead\\.[a-z]+$"`
	Partition int32  `path:"partition" minimum:"0"`
	Offset    int64  `path:"offset" minimum:"0"`
}

type letterOutput struct{ Body DeadLetter }

type statsInput struct{ Selector }

type statsOutput struct{ Body *Histogram }

func (s *Server) deadRoutes(api huma.API) {
	huma.Register(api, operation(http.MethodGet, "/dead", "list-dead", ScopeRead, "List dead letters",
		"Lists the app's dead letters: deliveries that were given up, and records that could not be read.",
		http.StatusOK, http.StatusTooManyRequests, http.StatusUnprocessableEntity), s.listDead)
	huma.Register(api, operation(http.MethodGet, "/dead/stats", "count-dead", ScopeRead, "Count dead letters",
		"Counts the app's dead letters by platform, campaign, origin, reason and code.",
		http.StatusOK, http.StatusTooManyRequests, http.StatusUnprocessableEntity), s.countDead)
	huma.Register(api, operation(http.MethodGet, "/dead/{topic}/{partition}/{offset}", "get-dead", ScopeRead, "Show a dead letter",
		"Shows one dead letter.", http.StatusOK, http.StatusNotFound, http.StatusTooManyRequests), s.getDead)
}

// scanning lets few read topics at a time.
func (s *Server) scanning(ctx context.Context) (done func(), err error) {
	p, err := s.scans.take(ctx, appOf(ctx), 1)
	if err != nil {
		return nil, busy(time.Second, "The app reads dead letters as often as it may at once. Wait as Retry-After says and try again.")
	}
	return p.release, nil
}

func (s *Server) listDead(ctx context.Context, in *deadInput) (*deadOutput, error) {
	filter, problems := in.proto()
	if len(problems) > 0 {
		return nil, invalid("query", problems)
	}
	done, err := s.scanning(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	scan, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	ranges, err := s.deadRanges(scan, filter, in.After)
	page := &DeadList{Letters: []DeadLetter{}}
	if err == nil {
		err = s.fill(scan, page, appOf(ctx), filter, ranges, in.Limit)
	}
	if _, said := errors.AsType[*Problem](err); said {
		return nil, err
	}
	if err != nil && (ctx.Err() != nil || page.Next == "") {
		return nil, s.readProblem(err)
	}
	return &deadOutput{*page}, nil
}

// deadRanges is where letters may lie that the filter means, in the order of pages.
func (s *Server) deadRanges(ctx context.Context, f *pb.ReplayFilter, after string) ([]*pb.TopicRange, error) {
	topics := letters.DeadTopics()
	if len(f.Platforms) > 0 {
		topics = nil
		for _, p := range f.Platforms {
			topics = append(topics, schemas.TopicDead(p))
		}
	}
	ranges, err := letters.Span(ctx, s.options.Kafka, f.Since, topics...)
	if err != nil || after == "" {
		return ranges, err
	}
	topic, partition, offset, ok := parsePlace(after)
	if !ok {
		return nil, invalid("query.after", errors.New("is not the next of a page"))
	}
	for len(ranges) > 0 && (ranges[0].Topic < topic || ranges[0].Topic == topic && ranges[0].Partition < partition) {
		ranges = ranges[1:]
	}
	if len(ranges) > 0 && ranges[0].Topic == topic && ranges[0].Partition == partition {
		ranges[0].Next = max(ranges[0].Next, offset)
	}
	return ranges, nil
}

// fill reads ranges, one after the other, until the page is full. page.Next is where it has come to, if not to the end.
func (s *Server) fill(ctx context.Context, page *DeadList, app string, f *pb.ReplayFilter, ranges []*pb.TopicRange, limit int) error {
	for _, one := range ranges {
		page.Next = place(one.Topic, one.Partition, one.Next)
		full := false
		err := letters.Scan(ctx, s.options.Kafka, []*pb.TopicRange{one}, func(r *kgo.Record) bool {
			if full = len(page.Letters) == limit; full {
				return false
			}
			l := letters.Read(one.Topic, r)
			page.Next = place(one.Topic, one.Partition, r.Offset+1)
			if l.App() == app && letters.Match(f, l.Facts()) {
				page.Letters = append(page.Letters, s.letterForm(l))
			}
			return true
		})
		if err != nil || full {
			return err
		}
	}
	page.Next = ""
	return nil
}

func place(topic string, partition int32, offset int64) string {
	return fmt.Sprintf("%s:%d:%d", topic, partition, offset)
}

func parsePlace(text string) (topic string, partition int32, offset int64, ok bool) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return "", 0, 0, false
	}
	p, err1 := strconv.ParseInt(parts[1], 10, 32)
	o, err2 := strconv.ParseInt(parts[2], 10, 64)
	return parts[0], int32(p), o, err1 == nil && err2 == nil
}

func (s *Server) getDead(ctx context.Context, in *LetterPath) (*letterOutput, error) {
	missing := problem(http.StatusNotFound, "not-found", "The app has no dead letter there. Its topic keeps letters for 14 days, unless it is configured otherwise.")
	if !slices.Contains(letters.DeadTopics(), in.Topic) {
		return nil, missing
	}
	done, err := s.scanning(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	scan, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	ranges, err := letters.Span(scan, s.options.Kafka, 0, in.Topic)
	if err != nil {
		return nil, s.readProblem(err)
	}
	var found *letters.Letter
	for _, one := range ranges {
		if one.Partition != in.Partition || in.Offset < one.Next || in.Offset >= one.End {
			continue
		}
		one.Next, one.End = in.Offset, in.Offset+1
		err = letters.Scan(scan, s.options.Kafka, []*pb.TopicRange{one}, func(r *kgo.Record) bool {
			found = letters.Read(in.Topic, r)
			return false
		})
	}
	switch {
	case err != nil:
		return nil, s.readProblem(err)
	case found == nil || found.App() != appOf(ctx):
		return nil, missing
	}
	return &letterOutput{s.letterForm(found)}, nil
}

func (s *Server) countDead(ctx context.Context, in *statsInput) (*statsOutput, error) {
	filter, problems := in.proto()
	if len(problems) > 0 {
		return nil, invalid("query", problems)
	}
	done, err := s.scanning(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	h, err := s.count(ctx, &pb.Replay{App: appOf(ctx), Source: pb.ReplaySource_REPLAY_SOURCE_DEAD, Filter: filter})
	if err != nil {
		return nil, err
	}
	return &statsOutput{h}, nil
}
