package fanout

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/message"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

// campaigns is what belfry.campaigns says, as far as this process has read it.
type campaigns struct {
	view *stream.View
	log  *slog.Logger

	mu    sync.RWMutex
	byKey map[string]*campaign
}

// campaign is one record of the topic and what it compiles to.
type campaign struct {
	*pb.Campaign
	// recipe is made when it is first asked for, and once: a definition never changes.
	recipe func() (*recipe, error)
}

// recipe is what expanding a campaign takes.
type recipe struct {
	// filter is nil for an audience that is not one.
	filter *registry.Filter
	// wanted is what filter and message look at in a device.
	wanted registry.Wanted
	// variables are those that the message names.
	variables []variable
}

func newCampaigns(k *stream.Kafka) *campaigns {
	c := &campaigns{log: k.Log, byKey: map[string]*campaign{}}
	c.view = stream.NewView(k, schemas.TopicCampaigns, c.apply)
	return c
}

func (c *campaigns) apply(r stream.ViewRecord) {
	key := string(r.Key)
	if r.Value == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.byKey, key)
		return
	}
	next := &pb.Campaign{}
	if err := proto.Unmarshal(r.Value, next); err != nil {
		// Only the launcher writes here: its last readable word stands.
		c.log.Error("unreadable campaign record", "campaign", key, "partition", r.Partition, "offset", r.Offset, "err", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := &campaign{Campaign: next}
	if old := c.byKey[key]; old != nil {
		entry.recipe = old.recipe
	} else {
		entry.recipe = sync.OnceValues(func() (*recipe, error) { return compile(next) })
	}
	c.byKey[key] = entry
}

func compile(c *pb.Campaign) (*recipe, error) {
	m, err := message.Compile(c.Message, message.Campaign)
	if err != nil {
		return nil, fmt.Errorf("message: %w", err)
	}
	r := &recipe{}
	if source := c.Audience.GetFilter(); source != "" {
		if r.filter, err = registry.CompileFilter(source); err != nil {
			return nil, fmt.Errorf("audience.filter: %w", err)
		}
		r.wanted = r.filter.Wanted()
	}
	for _, name := range m.Names() {
		r.variables = append(r.variables, newVariable(name))
		if a, ok := strings.CutPrefix(name, message.Attributes); ok && !slices.Contains(r.wanted.Attributes, a) {
			r.wanted.Attributes = append(r.wanted.Attributes, a)
		}
	}
	return r, nil
}

// get finds a campaign by its key, app/campaign, or nil.
func (c *campaigns) get(key string) *campaign {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byKey[key]
}

// catchUp waits until all that is on the topic now has been read.
func (c *campaigns) catchUp(ctx context.Context) error { return c.view.CatchUp(ctx) }

// due lists the scheduled campaigns whose time has come, and the drafts that nobody launched for as long as a campaign may take: they
// would fill the memory of every process for good.
func (c *campaigns) due(now time.Time) []*campaign {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var due []*campaign
	for _, e := range c.byKey {
		scheduled := e.State == pb.CampaignState_CAMPAIGN_STATE_SCHEDULED && e.StartAt <= now.UnixMilli()
		forgotten := e.State == pb.CampaignState_CAMPAIGN_STATE_DRAFT && e.CreatedAt <= now.Add(-schemas.MaxCampaign).UnixMilli()
		if scheduled || forgotten {
			due = append(due, e)
		}
	}
	return due
}

// over says that what is left of the campaign is not to be sent: its chunks become nothing, and are counted so.
func over(c *pb.Campaign, now time.Time) bool {
	return ended(c) || c.ExpiresAt != 0 && now.UnixMilli() >= c.ExpiresAt
}
