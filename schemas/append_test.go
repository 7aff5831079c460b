package schemas

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// AppendResult is written by hand: proto must read in it what was put in.
func FuzzAppendResult(f *testing.F) {
	f.Add([]byte("id"), int32(1), "410", int64(7), uint32(3), true, "device", false)
	f.Add([]byte(nil), int32(0), "", int64(0), uint32(0), false, "", false)
	f.Add(make([]byte, 300), int32(-1), "\xff", int64(-1), ^uint32(0), true, strings.Repeat("d", 200), true)
	f.Fuzz(func(t *testing.T, id []byte, outcome int32, code string, at int64, attempt uint32, planned bool, device string, message bool) {
		r := &pb.Result{
			Delivery: id, Outcome: pb.Outcome(outcome), Code: code, At: at, Attempt: attempt, Planned: planned, Message: message,
		}
		if device = strings.ToValidUTF8(device, "?"); device != "" {
			r.Invalid = &pb.Invalid{Device: device, At: at, RegisteredAt: 9}
		}
		b := AppendResult(AppendResult(nil, r), r)
		got := &pb.ResultBatch{}
		if err := proto.Unmarshal(b, got); err != nil {
			t.Fatal(err)
		}
		r.Code = strings.ToValidUTF8(code, "?")
		if want := (&pb.ResultBatch{Results: []*pb.Result{r, r}}); !proto.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	})
}
