package lanes

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

const (
	// PeerLife is how long a process's word counts. It speaks each peerEvery.
	PeerLife  = time.Minute
	peerEvery = 10 * time.Second
	// buried is after how long the last words of processes and lanes that ended without a farewell are taken off the topic: instances
	// may be named anew at each start.
	buried = time.Hour
	// refusedAtMost is how many words may be lost before it is said.
	refusedAtMost = 3
	// namedAtMost bounds the names in one difference.
	namedAtMost = 5
)

// Peers are the processes that spoke within PeerLife, by instance and roles. They must not be changed.
func (v *View) Peers() []*pb.LaneStatus {
	now := v.now()
	v.mu.RLock()
	defer v.mu.RUnlock()
	var peers []*pb.LaneStatus
	for _, w := range v.byKey {
		if w.Peer != nil && now.Sub(w.heard) < PeerLife {
			peers = append(peers, w.LaneStatus)
		}
	}
	slices.SortFunc(peers, func(a, b *pb.LaneStatus) int {
		return cmp.Or(cmp.Compare(a.Instance, b.Instance), slices.Compare(a.Peer.Roles, b.Peer.Roles))
	})
	return peers
}

// silent are the keys of those who have said nothing for so long.
func (v *View) silent(d time.Duration) (keys []string) {
	now := v.now()
	v.mu.RLock()
	defer v.mu.RUnlock()
	for key, w := range v.byKey {
		if now.Sub(w.heard) >= d {
			keys = append(keys, key)
		}
	}
	return keys
}

// Herald tells the other processes what this one was told, and says at WARN who was told otherwise.
type Herald struct {
	k    *stream.Kafka
	view *View
	own  *pb.Peer
	log  *slog.Logger
	// told is what was said of each peer that differs, by key.
	told    map[string]string
	written stream.Repeated
}

// NewHerald makes one. It begins with Run, and looks at a view that must run too.
func NewHerald(k *stream.Kafka, v *View, own *pb.Peer) *Herald {
	return &Herald{k: k, view: v, own: own, log: k.Log, told: map[string]string{}, written: stream.Repeated{
		Fails: "what this process was told cannot be told to the others: they do not see it, nor whether it was told otherwise",
		Works: "what this process was told is told to the others again", Level: slog.LevelWarn, After: refusedAtMost,
	}}
}

// Run speaks and looks until ctx is done, and takes its word away then.
func (h *Herald) Run(ctx context.Context) error {
	client, err := h.k.Client(kgo.RecordDeliveryTimeout(peerEvery), stream.GiveUp(), kgo.MaxBufferedRecords(100))
	if err != nil {
		return fmt.Errorf("tell other processes what this one was told: %w", err)
	}
	defer client.Close()
	defer h.leave(client)
	tick := time.NewTicker(peerEvery)
	defer tick.Stop()
	ready, looks := h.view.Ready(), false
	for {
		h.speak(ctx, client)
		if looks {
			h.look()
			h.bury(ctx, client)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ready:
			ready, looks = nil, true
		case <-tick.C:
		}
	}
}

func (h *Herald) key() []byte { return peerKey(h.k.Instance, h.own.Roles) }

func peerKey(instance string, roles []string) []byte {
	return schemas.Key("peer", instance, strings.Join(roles, ","))
}

// speak writes this process's word.
func (h *Herald) speak(ctx context.Context, client *kgo.Client) {
	value, err := proto.Marshal(&pb.LaneStatus{Instance: h.k.Instance, At: time.Now().UnixMilli(), Peer: h.own})
	if err != nil {
		h.log.Error("what this process was told cannot be told to others", "err", err)
		return
	}
	h.write(ctx, client, h.key(), value)
}

func (h *Herald) write(ctx context.Context, client *kgo.Client, key, value []byte) {
	client.TryProduce(ctx, &kgo.Record{Topic: h.k.Topic(schemas.TopicLanes), Key: key, Value: value}, h.written.Wrote(h.k, h.log))
}

// look says who was told otherwise, once for each change.
func (h *Herald) look() {
	differ := map[string]string{}
	for _, s := range h.view.Peers() {
		key := string(peerKey(s.Instance, s.Peer.Roles))
		if key == string(h.key()) {
			continue
		}
		differs := strings.Join(Differences(h.own, s.Peer), "; ")
		was, said := h.told[key]
		switch {
		case differs != "" && differs != was:
			h.log.Warn("another process was told otherwise than this one: give all the same configuration",
				"other_instance", s.Instance, "other_roles", strings.Join(s.Peer.Roles, ","), "differs", differs)
		case differs == "" && said:
			h.log.Info("another process is told as this one now", "other_instance", s.Instance, "other_roles", strings.Join(s.Peer.Roles, ","))
		}
		if differs != "" {
			differ[key] = differs
		}
	}
	h.told = differ
}

// bury takes off the topic what was said by those who ended without a farewell. One of them that lives will speak again.
func (h *Herald) bury(ctx context.Context, client *kgo.Client) {
	for _, key := range h.view.silent(buried) {
		h.write(ctx, client, []byte(key), nil)
	}
}

// leave takes this process's word away.
func (h *Herald) leave(client *kgo.Client) {
	if h.k.Away() {
		return // it is left out by its age
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	record := &kgo.Record{Topic: h.k.Topic(schemas.TopicLanes), Key: h.key()}
	if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
		h.log.Debug("this process's word to the others could not be taken away; it is left out by its age", "err", stream.Explain(err))
	}
}

// Differences are what another process was told otherwise than this one, in words that name it. There are none when they were
// told alike, whatever their versions and roles.
func Differences(own, other *pb.Peer) (differ []string) {
	if own.RedisPrefix != other.RedisPrefix {
		differ = append(differ, fmt.Sprintf("redis.prefix is %q here and %q there", own.RedisPrefix, other.RedisPrefix))
	}
	add := func(what string, names []string) {
		if len(names) > 0 {
			differ = append(differ, what+" "+list(names))
		}
	}
	add("only here app", missing(own.Apps, other.Apps))
	add("only there app", missing(other.Apps, own.Apps))
	var platforms, rules []string
	for _, name := range slices.Sorted(maps.Keys(own.Apps)) {
		a, b := own.Apps[name], other.Apps[name]
		if b == nil {
			continue
		}
		for _, p := range schemas.Platforms {
			platform := schemas.PlatformName(p)
			if !agree(a.Platforms, b.Platforms, platform) {
				platforms = append(platforms, name+"/"+platform)
			}
		}
		if a.Rules != b.Rules {
			rules = append(rules, name)
		}
	}
	add("another credential, or none on one side, for", platforms)
	add("other rules of app", rules)
	return differ
}

// agree compares what two processes know a platform by. What one of them cannot read agrees with any.
func agree(a, b map[string]uint64, platform string) bool {
	x, here := a[platform]
	y, there := b[platform]
	return here == there && (x == y || x == 0 || y == 0)
}

func missing(in, from map[string]*pb.AppPrint) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(in)) {
		if from[name] == nil {
			names = append(names, name)
		}
	}
	return names
}

// list names a few, and says how many more there are.
func list(names []string) string {
	if more := len(names) - namedAtMost; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:namedAtMost], ", "), more)
	}
	return strings.Join(names, ", ")
}
