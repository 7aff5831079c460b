package main

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// TestReplaysSendOnce: what replays did is fine when each has ended, and each of their letters went out once more.
func TestReplaysSendOnce(t *testing.T) {
	dead, alive := [16]byte{1}, [16]byte{2}
	const running, finished = pb.ReplayState_REPLAY_STATE_RUNNING, pb.ReplayState_REPLAY_STATE_FINISHED
	step := func(id string, state pb.ReplayState, offsets ...int64) *pb.ReplayStep {
		s := &pb.ReplayStep{Id: id, Progress: &pb.ReplayProgress{State: state}}
		if len(offsets) > 0 {
			s.Claims = []*pb.ReplayClaim{{Topic: "dead.fcm", Partition: 3, Offsets: offsets}}
		}
		return s
	}
	for _, tt := range []struct {
		name  string
		steps []*pb.ReplayStep
		sent  map[[16]byte]int
		want  string
	}{
		{"sent again", []*pb.ReplayStep{{Id: "r"}, step("r", running, 7), step("r", finished)}, map[[16]byte]int{dead: 2, alive: 1}, ""},
		{"begun twice", []*pb.ReplayStep{{Id: "r"}, step("r", finished, 7), {Id: "r"}}, map[[16]byte]int{dead: 2}, ""},
		{"stuck", []*pb.ReplayStep{step("r", running, 7)}, map[[16]byte]int{dead: 2}, "is REPLAY_STATE_RUNNING on fcm"},
		{"sent by two steps", []*pb.ReplayStep{step("r", running, 7), step("r", finished, 7)}, map[[16]byte]int{dead: 3}, "sent again 2 times"},
		{"noted and not sent", []*pb.ReplayStep{step("r", finished, 7)}, map[[16]byte]int{dead: 1}, "sent out 1 times, and 1 times by replays"},
		{"sent and not noted", []*pb.ReplayStep{step("r", finished)}, map[[16]byte]int{dead: 2}, "sent out 2 times, and 0 times by replays"},
		{"no letter", []*pb.ReplayStep{step("r", finished, 7, 1)}, map[[16]byte]int{dead: 2}, "a delivery's: false"},
		{"written by a dry run", []*pb.ReplayStep{step("r", finished), step("x", finished)}, nil, "nobody asked for"},
		{"nothing came of it", nil, nil, "of which there is nothing"},
	} {
		r := newReplayed()
		r.letters[letter{"dead.fcm", 3, 7}] = dead
		for _, s := range tt.steps {
			for _, p := range schemas.Platforms {
				name, one := schemas.PlatformName(p), s
				if name != "fcm" { // the others have read to their ends and found nothing
					one = step(s.Id, finished)
				}
				if err := r.step(name, &kgo.Record{Value: encode(t, one)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		wrong := strings.Join(r.faults([]string{"r"}, tt.sent, func([16]byte) bool { return true }), "; ")
		if (wrong == "") != (tt.want == "") || !strings.Contains(wrong, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, wrong, tt.want)
		}
	}
}

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
