package ledger

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream"
)

//go:embed apply.lua
var applyLua string

var applyScript = redis.NewScript(applyLua)

// maxPause is the longest between two tries of a Redis that does not answer.
const maxPause = 5 * time.Second

// show copies belfry.accounts to Redis, for those who only look. The books never wait for it.
type show struct {
	redis  redis.UniversalClient
	prefix string
	log    *slog.Logger
}

// view is a follower of belfry.accounts that shows what it reads, until ctx is done.
func (s *show) view(ctx context.Context, k *stream.Kafka) *stream.View {
	return stream.NewView(k, schemas.TopicAccounts, func(r stream.ViewRecord) { s.apply(ctx, r) })
}

// apply shows one account. It tries until Redis has it or ctx ends, and says once that it waits.
func (s *show) apply(ctx context.Context, r stream.ViewRecord) {
	var a pb.Account
	if proto.Unmarshal(r.Value, &a) != nil || a.GetRun() == "" {
		return // not an account: the books take no notice of it either
	}
	key := redisKey(s.prefix, a.GetApp(), a.GetRun(), a.GetPlatform())
	failed := false
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, maxPause) {
		err := applyScript.Run(ctx, s.redis, []string{key}, r.Offset, r.Value, r.Partition).Err()
		if err == nil || ctx.Err() != nil {
			break
		}
		if !failed {
			failed = true
			s.log.Warn("accounts are not shown while Redis does not answer; they are counted all the same", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	if failed && ctx.Err() == nil {
		s.log.Info("Redis answers again, accounts are shown")
	}
}

// Rebuild shows every account again in a Redis that has lost them, up to those written when it was called.
func Rebuild(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	view := (&show{o.Redis, o.Prefix, o.Kafka.Log}).view(ctx, o.Kafka)
	ended := make(chan error, 1)
	go func() { ended <- view.Run(ctx) }()
	select {
	case err := <-ended:
		return errors.Join(err, context.Cause(ctx))
	case <-view.Ready():
		cancel()
		return <-ended
	}
}

// redisKey puts all platforms of a run into one cluster slot.
func redisKey(prefix, app, run string, p pb.Platform) string {
	return prefix + "account:{" + string(schemas.Key(app, run)) + "}:" + schemas.PlatformName(p)
}

// Read returns what Redis shows of a run, an account for each platform that has one.
func Read(ctx context.Context, rdb redis.UniversalClient, prefix, app, run string) ([]*pb.Account, error) {
	pipe := rdb.Pipeline()
	shown := make([]*redis.StringCmd, len(schemas.Platforms))
	for i, p := range schemas.Platforms {
		shown[i] = pipe.HGet(ctx, redisKey(prefix, app, run, p), "account")
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("read the accounts of run %s from Redis: %w", run, err)
	}
	var accounts []*pb.Account
	for _, cmd := range shown {
		value, err := cmd.Bytes()
		if errors.Is(err, redis.Nil) {
			continue
		}
		a := &pb.Account{}
		if err == nil {
			err = proto.Unmarshal(value, a)
		}
		if err != nil {
			return nil, fmt.Errorf("read the accounts of run %s from Redis: %w; belfry rebuild makes them anew", run, err)
		}
		accounts = append(accounts, a)
	}
	return accounts, nil
}
