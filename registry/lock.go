package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// lock is held by whoever rebuilds. It runs out when its holder dies; a holder that was too slow finds it lost and gives
// up, and the view stays unbuilt until the other is done.
type lock struct {
	g    *Registry
	name string
}

// Scripts that act only for the holder. KEYS: lock, built. ARGV: the holder, ms to keep it.
var (
	keepScript    = redis.NewScript(`if redis.call("GET", KEYS[1]) ~= ARGV[1] then return 0 end redis.call("PEXPIRE", KEYS[1], ARGV[2]) return 1`)
	freeScript    = redis.NewScript(`if redis.call("GET", KEYS[1]) == ARGV[1] then redis.call("DEL", KEYS[1]) end return 1`)
	publishScript = redis.NewScript(`if redis.call("GET", KEYS[1]) ~= ARGV[1] then return 0 end redis.call("SET", KEYS[2], ARGV[1]) return 1`)
)

var errLockLost = errors.New("the rebuild was held up for so long that another may have begun; run it again")

func (l *lock) take(ctx context.Context) error {
	taken, err := l.g.redis.SetNX(ctx, l.g.lockKey(), l.name, lockTime).Result()
	if err != nil {
		return fmt.Errorf("lock the registry: redis: %w", err)
	}
	if !taken {
		return ErrRebuilding
	}
	return nil
}

// keep renews the lock until ctx ends, or ends it when the lock is lost.
func (l *lock) keep(ctx context.Context, cancel context.CancelCauseFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(lockTime / 3):
		}
		// A Redis that does not answer is no loss yet: the lock may outlive the outage, and publish asks again.
		if held, err := l.run(ctx, keepScript); err == nil && !held {
			cancel(errLockLost)
		}
	}
}

// publish gives the view to its readers.
func (l *lock) publish(ctx context.Context) error {
	held, err := l.run(ctx, publishScript)
	if err == nil && !held {
		return errLockLost
	}
	return err
}

func (l *lock) free(ctx context.Context) error {
	_, err := l.run(ctx, freeScript)
	return err
}

func (l *lock) run(ctx context.Context, script *redis.Script) (held bool, err error) {
	keys := []string{l.g.lockKey(), l.g.builtKey()}
	n, err := script.Run(ctx, l.g.redis, keys, l.name, lockTime.Milliseconds()).Int()
	if err != nil {
		return false, fmt.Errorf("lock of the registry: redis: %w", err)
	}
	return n == 1, nil
}
