package letters

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// Letter is one dead letter and where it lies.
type Letter struct {
	*pb.DeadLetter
	// Topic is without prefix.
	Topic     string
	Partition int32
	Offset    int64
	Key       []byte
}

// Read makes a letter of a record of a topic of dead letters; topic is without prefix. One that is no letter itself reads
// as an undecodable one.
func Read(topic string, r *kgo.Record) *Letter {
	l := &Letter{DeadLetter: &pb.DeadLetter{}, Topic: topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key}
	if err := proto.Unmarshal(r.Value, l.DeadLetter); err != nil {
		l.DeadLetter = &pb.DeadLetter{Raw: r.Value, Reason: "undecodable", Detail: "not a belfry.v1.DeadLetter", LastAt: r.Timestamp.UnixMilli()}
	}
	return l
}

// DeadTopics are all topics of dead letters, without prefix.
func DeadTopics() []string {
	var topics []string
	for _, t := range schemas.Plan() {
		if strings.HasPrefix(t.Name, "dead.") {
			topics = append(topics, t.Name)
		}
	}
	return topics
}

// Platform is the one whose topic the letter lies on, if it is of one.
func (l *Letter) Platform() pb.Platform {
	p, _ := schemas.ParsePlatform(strings.TrimPrefix(l.Topic, "dead."))
	return p
}

// App is the app that the letter belongs to, or "" when its record has not even a key that tells.
func (l *Letter) App() string {
	if l.Delivery != nil {
		return l.Delivery.App
	}
	if parts := schemas.SplitKey(l.Key, 2); len(parts) == 2 && utf8.Valid(l.Key) {
		return parts[0]
	}
	return ""
}

// Sendable tells whether the letter holds a whole delivery: what a lane would refuse again is not worth a replay.
func (l *Letter) Sendable() bool { return sendable(l.Delivery, l.Platform()) }

func sendable(d *pb.Delivery, p pb.Platform) bool {
	return d != nil && len(d.Id) == 16 && d.App != "" && d.Run != "" && d.Device != "" && d.ExpiresAt > 0 &&
		schemas.ClassName(d.Class) != "" && schemas.TargetPlatform(d.Target) == p && p != pb.Platform_PLATFORM_UNSPECIFIED
}

// Origin is what stood between the delivery and its device: the host of a web push endpoint, APNs' environment, or
// nothing for FCM, which is one.
func Origin(t *pb.Target) string {
	switch kind := t.GetKind().(type) {
	case *pb.Target_Apns:
		switch kind.Apns.GetEnvironment() {
		case pb.Environment_ENVIRONMENT_PRODUCTION:
			return "production"
		case pb.Environment_ENVIRONMENT_SANDBOX:
			return "sandbox"
		}
	case *pb.Target_Webpush:
		if u, err := url.Parse(kind.Webpush.GetEndpoint()); err == nil {
			return strings.ToLower(u.Host)
		}
	}
	return ""
}
