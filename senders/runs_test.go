package senders

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

func TestRunsFollowTheCampaigns(t *testing.T) {
	k := streamtest.Kafka(t)
	runs := NewRuns(k, fcm)
	streamtest.Run(t, runs.Run)
	<-runs.Ready()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	if _, err := runs.lookup(ctx, "shop", "spring", time.Now()); !errors.Is(err, errUnknownRun) {
		t.Fatalf("a campaign that is not there: %v", err)
	}
	// It was written before it is asked for, so the view waits for it, whatever it knew just now.
	campaign(t, k, "spring", pb.CampaignState_CAMPAIGN_STATE_RUNNING)
	r, err := runs.lookup(ctx, "shop", "spring", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	first, err := r.message()
	if err != nil {
		t.Fatal(err)
	}
	campaign(t, k, "spring", pb.CampaignState_CAMPAIGN_STATE_CANCELLED)
	if err := runs.view.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	if r.State() != pb.CampaignState_CAMPAIGN_STATE_CANCELLED {
		t.Error("a job that holds the run does not see that it is cancelled")
	}
	if again, _ := r.message(); again != first {
		t.Error("the message was compiled again for a change of state")
	}

	broken := &pb.Campaign{App: "shop", Id: "broken", Message: &pb.Message{Content: &pb.Content{Title: "{{ nonsense }}"}}}
	streamtest.Produce(t, k,
		&kgo.Record{Topic: schemas.TopicCampaigns, Key: schemas.Key("shop", "broken"), Value: encode(broken)},
		&kgo.Record{Topic: schemas.TopicCampaigns, Key: schemas.Key("shop", "spring")},
	)
	if err := runs.view.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	if r, err := runs.lookup(ctx, "shop", "broken", time.Now()); err != nil {
		t.Error(err)
	} else if _, err := r.message(); err == nil {
		t.Error("a message with an unknown variable compiled")
	}
	if _, err := runs.lookup(ctx, "shop", "spring", time.Now()); !errors.Is(err, errUnknownRun) {
		t.Errorf("a campaign that was removed: %v", err)
	}
}
