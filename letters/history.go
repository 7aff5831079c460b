package letters

import (
	"errors"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// maxDeliveries is how many deliveries of send topics a replay may mean, and how many a history may hold that were sent
// again: some 30 bytes each, in memory.
var maxDeliveries = 4 << 20

// What a replay cannot do for want of memory.
var (
	ErrTooMany = errors.New("it means more deliveries than fit into memory (4 million): narrow it by time, campaign or platform")
	ErrFull    = errors.New("4 million deliveries were sent again within 30 days, and no more can be remembered: wait until the topic of replays has let go of some")
)

// History is what replays have done on one platform, as belfry.replays.<platform> tells. It is safe for concurrent use.
type History struct {
	mu       sync.Mutex
	progress map[string]*pb.ReplayProgress // by app/id
	letters  map[partition]bits
	// deliveries are those of send topics that were sent again.
	deliveries map[[16]byte]struct{}
}

// NewHistory makes an empty one.
func NewHistory() *History {
	return &History{
		progress: map[string]*pb.ReplayProgress{}, letters: map[partition]bits{}, deliveries: map[[16]byte]struct{}{},
	}
}

// Apply takes a record of the topic.
func (h *History) Apply(value []byte) error {
	step := &pb.ReplayStep{}
	if err := proto.Unmarshal(value, step); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if step.Progress != nil {
		h.progress[string(schemas.Key(step.App, step.Id))] = step.Progress
	}
	for _, c := range step.Claims {
		if len(c.Deliveries)%16 != 0 {
			return errors.New("ids are not of 16 bytes each")
		}
		var offset int64
		for _, o := range c.Offsets {
			offset += o
			h.bits(c.Topic, c.Partition).set(offset)
		}
		for id := c.Deliveries; len(id) > 0; id = id[16:] {
			h.deliveries[[16]byte(id)] = struct{}{}
		}
	}
	return nil
}

// Progress is how far a replay is, or nil if it has not begun. It must not be changed.
func (h *History) Progress(app, id string) *pb.ReplayProgress {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.progress[string(schemas.Key(app, id))]
}

// Full tells that no more deliveries of send topics can be remembered. It empties as the topic's retention passes, for
// who reads it anew.
func (h *History) Full() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.deliveries) >= maxDeliveries
}

// bits of one partition. h.mu is held.
func (h *History) bits(topic string, number int32) bits {
	at := partition{topic, number}
	if h.letters[at] == nil {
		h.letters[at] = bits{}
	}
	return h.letters[at]
}

// Has tells whether something was sent again.
func (h *History) Has(f *Found) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.has(f)
}

func (h *History) has(f *Found) bool {
	if f.Original != nil {
		_, has := h.deliveries[[16]byte(f.Original)]
		return has
	}
	return h.letters[partition{f.Topic, f.Partition}].has(f.Offset)
}

// HasLetter tells whether a dead letter was sent again.
func (h *History) HasLetter(l *Letter) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.letters[partition{l.Topic, l.Partition}].has(l.Offset)
}

// Take enters something that is about to be sent again, and is false if it was before.
func (h *History) Take(f *Found) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.has(f) {
		return false
	}
	if f.Original != nil {
		h.deliveries[[16]byte(f.Original)] = struct{}{}
	} else {
		h.bits(f.Topic, f.Partition).set(f.Offset)
	}
	return true
}

// Claim records what was taken, which must be in the order of offsets within a partition.
func Claim(taken []*Found) []*pb.ReplayClaim {
	var claims []*pb.ReplayClaim
	at, last := map[partition]*pb.ReplayClaim{}, map[partition]int64{}
	for _, f := range taken {
		where := partition{f.Topic, f.Partition}
		c := at[where]
		if c == nil {
			c = &pb.ReplayClaim{Topic: f.Topic, Partition: f.Partition}
			at[where] = c
			claims = append(claims, c)
		}
		if f.Original != nil {
			c.Deliveries = append(c.Deliveries, f.Original...)
			continue
		}
		c.Offsets = append(c.Offsets, f.Offset-last[where])
		last[where] = f.Offset
	}
	return claims
}

// bits is a set of offsets: 512 bytes for each 4,096 of them that hold one.
type bits map[int64]*[64]uint64

func (b bits) set(offset int64) {
	block := b[offset>>12]
	if block == nil {
		block = new([64]uint64)
		b[offset>>12] = block
	}
	block[offset>>6&63] |= 1 << (offset & 63)
}

func (b bits) has(offset int64) bool {
	block := b[offset>>12]
	return block != nil && block[offset>>6&63]&(1<<(offset&63)) != 0
}
