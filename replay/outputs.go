package replay

import (
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/letters"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// again are the deliveries that go out, and the accounts' share of it: a dead letter is pending again, and a past
// delivery becomes a new one.
func again(p pb.Platform, taken []*letters.Found) []stream.Output {
	outs := make([]stream.Output, 0, len(taken)+8)
	runs := map[string]*pb.Replayed{}
	for _, f := range taken {
		d := f.Delivery
		outs = append(outs, stream.Output{
			Topic: schemas.TopicSend(p, d.Class), Key: schemas.DeviceKey(d.App, d.Device), Value: encode(d),
		})
		key := string(schemas.Key(d.App, d.Run))
		if runs[key] == nil {
			runs[key] = &pb.Replayed{}
		}
		if f.Original == nil {
			runs[key].Dead++
		} else {
			runs[key].Planned++
		}
	}
	for key, r := range runs {
		outs = append(outs, stream.Output{
			Topic: schemas.TopicResults(p), Key: []byte(key), Value: schemas.AppendReplayed(nil, r), Mode: stream.Append,
		})
	}
	return outs
}

// ended notes on belfry.control, where it stays, what became of a replay. It is the one record there that is written in a
// transaction, once for each replay and platform.
func ended(s *pb.ReplayStep, p pb.Platform, progress *pb.ReplayProgress) stream.Output {
	final := proto.CloneOf(progress)
	final.Ranges, final.Results = nil, nil
	return stream.Output{
		Topic: schemas.TopicControl, Key: schemas.ReplayKey(s.App, s.Id, p),
		Value: encode(&pb.Control{Kind: &pb.Control_ReplayEnded{ReplayEnded: final}}), Mode: stream.Latest,
	}
}

// encode cannot fail: what was decoded has valid strings, and ids and codes were checked where they came in.
func encode(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic("replay: encode: " + err.Error())
	}
	return b
}
