package ledger

import (
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// gone makes the registry's word for each device that a provider reported unregistered. A registration that is as new as
// the provider's report, or newer, stays: the app has confirmed the target since. The registry compares once more, with
// the registration that it holds by then.
func gone(app string, batch *pb.ResultBatch) []stream.Output {
	var outs []stream.Output
	for _, r := range batch.GetResults() {
		invalid := r.GetInvalid()
		if r.GetOutcome() != pb.Outcome_OUTCOME_UNREGISTERED || invalid == nil || invalid.GetRegisteredAt() >= invalid.GetAt() {
			continue
		}
		value, err := proto.Marshal(&pb.DeviceRecord{Kind: &pb.DeviceRecord_Gone{Gone: &pb.DeviceGone{
			App: app, Id: invalid.GetDevice(), At: invalid.GetAt(), Code: r.GetCode(),
		}}})
		if err != nil {
			// As in encode.
			panic("ledger: encode a device's end: " + err.Error())
		}
		outs = append(outs, stream.Output{
			Topic: schemas.TopicDevices, Key: schemas.DeviceGoneKey(app, invalid.GetDevice()), Value: value,
		})
	}
	return outs
}
