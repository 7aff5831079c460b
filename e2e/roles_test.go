package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/config"
	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// parts is a world whose every role is a process of its own.
type parts struct {
	*world
	roles map[string]*process
	// mayRepeat counts what a killed sender had in flight or done since its last commit.
	mayRepeat int64
}

func (p *parts) start(role string) {
	p.t.Helper()
	p.roles[role] = launch(p.t, role, append(p.env, "BELFRY_INSTANCE=e2e-"+role), "serve", "--roles", role)
	if role == "producer" {
		p.ready(p.roles[role])
	}
}

// strike kills a role, looks at what that left, and starts it again.
func (p *parts) strike(role string, look func()) {
	p.t.Helper()
	p.roles[role].kill()
	look()
	p.start(role)
}

// Each role as its own process: each is killed while it works, and started again.
func TestKillEachRole(t *testing.T) {
	needReal(t, "each role is a process of its own, and they share them")
	t.Parallel()
	p := &parts{world: newWorld(t, options{devices: 30_000}), roles: map[string]*process{}}
	p.prepare()
	p.start("registry") // the producer is ready once the registry is there
	for _, role := range config.Roles {
		if role != "registry" {
			p.start(role)
		}
	}
	p.register("demo")
	ended := p.killFanout()
	p.slow(800 * time.Millisecond)
	p.campaign("demo", everyone("c1"))
	for _, platform := range []string{"webpush", "apns", "fcm"} {
		p.killSender(platform)
	}
	p.killLedger()
	p.killRegistry()
	p.killProducer()
	if c, ok := p.progress("demo", "c1"); !ok || c.State != "running" {
		t.Errorf("the campaign was over before the last kill: %+v", c)
	}
	p.lift("slow")

	ended = append(ended, p.ended("demo", "c1"))
	p.balanced(ended...)
	p.notRepeated(p.mayRepeat, ended...)
	for _, role := range p.roles {
		role.stop()
	}
	p.expandedOnce(ended)
}

// killFanout kills the fan-out between the first and the last chunk of a campaign. Whether a kill struck there is seen
// afterwards, on Kafka, so it is tried again with another campaign until one did. Their audience is small, for their
// chunks are as many as for a large one.
func (p *parts) killFanout() (ended []producer.Progress) {
	p.t.Helper()
	struck := false
	for i := 0; i < 10 && !struck; i++ {
		id := fmt.Sprintf("few-%d", i)
		p.campaign("demo", strings.Replace(everyone(id), `"everyone": true`, few, 1))
		var before map[string]int
		p.strike("fanout", func() { before = p.expanded(id) })
		c := p.ended("demo", id)
		n := len(before)
		p.t.Logf("fanout killed with %d of %d chunks expanded", n, c.Chunks)
		struck = n < int(c.Chunks)
		ended = append(ended, c)
	}
	if !struck {
		p.t.Error("no kill of the fan-out struck before all chunks were expanded")
	}
	return ended
}

// expanded are a campaign's chunks of which Kafka holds a committed count.
func (p *parts) expanded(id string) map[string]int {
	p.t.Helper()
	chunks := map[string]int{}
	p.onKafka(func(k *stream.Kafka) {
		for _, platform := range schemas.Platforms {
			committed(p.t, k, schemas.TopicResults(platform), func(r *kgo.Record) {
				var batch pb.ResultBatch
				if err := proto.Unmarshal(r.Value, &batch); err != nil {
					p.t.Fatal(err)
				}
				if string(r.Key) != "demo/"+id {
					return
				}
				for _, e := range batch.Expanded {
					chunks[fmt.Sprint(schemas.PlatformName(platform), e.Chunk)]++
				}
			})
		}
	})
	return chunks
}

// killSender kills a platform's senders with requests in flight, and adds to what may be repeated.
func (p *parts) killSender(platform string) {
	p.t.Helper()
	before := p.receipts()
	until(p.t, platform+" is sending", func() bool {
		return taken(p.receipts().ByStatus[platform]) > taken(before.ByStatus[platform])+100
	})
	held := p.hold(platform)
	p.strike("senders."+platform+".bulk", func() {
		cut := held()
		var known int64
		p.onKafka(func(k *stream.Kafka) { known = acceptedOnKafka(p.t, k, platform) })
		accepted := p.accepted(platform)
		p.t.Logf("senders.%s killed when %d were accepted, %d of them committed; %d requests were cut off", platform, accepted, known, cut)
		p.mayRepeat += accepted - known
	})
}

// lag is how much a consumer group has left of a topic.
func (p *parts) lag(group, topic string) (n int64) {
	p.t.Helper()
	p.onKafka(func(k *stream.Kafka) {
		client, err := k.Client()
		if err != nil {
			p.t.Fatal(err)
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(p.t.Context(), patience)
		defer cancel()
		adm := kadm.NewClient(client)
		ends, err := adm.ListEndOffsets(ctx, k.Topic(topic))
		if err != nil {
			p.t.Fatal(err)
		}
		at, err := adm.FetchOffsets(ctx, k.Prefix+group)
		if err != nil {
			p.t.Fatal(err)
		}
		ends.Each(func(end kadm.ListedOffset) {
			var done int64
			if o, ok := at.Lookup(end.Topic, end.Partition); ok {
				done = max(0, o.At)
			}
			n += end.Offset - done
		})
	})
	return n
}

func (p *parts) killLedger() {
	p.t.Helper()
	before, _ := p.progress("demo", "c1")
	until(p.t, "the ledger is counting", func() bool {
		now, ok := p.progress("demo", "c1")
		return ok && now.Accepted > before.Accepted && now.Pending > 0
	})
	p.strike("ledger", func() {
		now := p.receipts()
		until(p.t, "results come while the ledger is dead", func() bool { return p.receipts().Distinct > now.Distinct })
	})
}

var version = regexp.MustCompile(`"app_version":"[^"]*"`)

// killRegistry kills the registry while it has changes of devices to apply. All of them must be there afterwards.
func (p *parts) killRegistry() {
	p.t.Helper()
	file := p.write("changed.ndjson", version.ReplaceAllString(p.read("sim/demo/devices.ndjson"), `"app_version":"9.9.9"`))
	lines := launch(p.t, "import", p.env, "devices", "import", file)
	until(p.t, "the registry has changes to apply", func() bool { return p.lag("registry", schemas.TopicDevices) > 100 })
	p.strike("registry", func() {
		if p.lag("registry", schemas.TopicDevices) == 0 {
			p.t.Error("the registry had nothing to do at the kill")
		}
	})
	lines.wait()
	if lines.err != nil {
		p.t.Errorf("import: %v: %s", lines.err, lines.log.tail())
	}
	until(p.t, "the changes are in the registry", func() bool { return p.unchanged() == 0 })
}

// unchanged counts, of the last hundred devices, those that an import has not changed yet.
func (p *parts) unchanged() (n int) {
	p.t.Helper()
	for i := p.devices - 100; i < p.devices; i++ {
		a := p.call("demo", "GET", fmt.Sprintf("/v1/devices/d-%06d", i), "")
		var d producer.ShownDevice
		if err := json.Unmarshal(a.body, &d); err != nil {
			p.t.Fatal(err)
		}
		if d.AppVersion != "9.9.9" {
			n++
		}
	}
	return n
}

// killProducer kills the API in the middle of a stream of devices. Whoever sends it is told so, and sends them again.
func (p *parts) killProducer() {
	p.t.Helper()
	file := filepath.Join(p.dir, "sim", "demo", "devices.ndjson")
	before := p.lag("nobody", schemas.TopicDevices) // the whole length of the topic
	lines := launch(p.t, "import", p.env, "devices", "import", file)
	until(p.t, "devices come in", func() bool { return p.lag("nobody", schemas.TopicDevices) > before })
	p.strike("producer", func() {
		lines.wait()
		if lines.err == nil || lines.log.String() == "" {
			p.t.Errorf("the import was over before the kill, or does not say that it broke: %s%s", lines.out.tail(), lines.log.tail())
		}
	})
	p.belfry("devices", "import", file)
}

// expandedOnce asserts that each device has each campaign's delivery once on the send topics, and as many are there as
// were counted.
func (p *parts) expandedOnce(campaigns []producer.Progress) {
	p.t.Helper()
	planned := map[string]uint64{}
	seen, twice := map[string]bool{}, 0
	p.onKafka(func(k *stream.Kafka) {
		for _, platform := range schemas.Platforms {
			committed(p.t, k, schemas.TopicSend(platform, pb.Class_CLASS_BULK), func(r *kgo.Record) {
				var d pb.Delivery
				if err := proto.Unmarshal(r.Value, &d); err != nil {
					p.t.Fatal(err)
				}
				if d.Attempt > 0 || d.LastCode != "" {
					return // it came back from a retry topic
				}
				if seen[string(d.Id)] {
					twice++
				}
				seen[string(d.Id)] = true
				planned[d.Run]++
			})
		}
	})
	if twice > 0 {
		p.t.Errorf("%d deliveries are on the send topics twice", twice)
	}
	for _, c := range campaigns {
		if planned[c.Campaign] != c.Planned {
			p.t.Errorf("campaign %s: %d deliveries on the send topics, and %d are counted as planned", c.Campaign, planned[c.Campaign], c.Planned)
		}
		for chunk, times := range p.expanded(c.Campaign) {
			if times != 1 {
				p.t.Errorf("campaign %s: chunk %s is counted %d times", c.Campaign, chunk, times)
			}
		}
	}
}
