package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/belfry/belfry/config"
	"github.com/belfry/belfry/fanout"
	"github.com/belfry/belfry/health"
	"github.com/belfry/belfry/lanes"
	"github.com/belfry/belfry/ledger"
	"github.com/belfry/belfry/listen"
	"github.com/belfry/belfry/producer"
	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/replay"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/apns"
	"github.com/belfry/belfry/senders/fcm"
	"github.com/belfry/belfry/senders/webpush"
	"github.com/belfry/belfry/stream"
)

// app is one process: what its configuration names, opened, and the roles that it runs on it.
type app struct {
	cfg   *config.Config
	log   *slog.Logger
	kafka *stream.Kafka
	redis *registry.Redis
	roles []role
	// peer is what this process tells the others that it was told.
	peer *pb.Peer
	// address is where the API listens, if it does.
	address string
	health  *health.Process
	// told is where others see how this process is, or nil.
	told  *health.Server
	close []func()
}

type role struct {
	name string
	run  func(context.Context) error
}

// openApp opens Kafka and Redis and makes the roles. A Kafka or Redis that is away is waited for until ctx ends.
func openApp(ctx context.Context, cfg *config.Config, log *slog.Logger) (_ *app, err error) {
	a := &app{cfg: cfg, log: log}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	if err := a.openHealth(); err != nil {
		return nil, err
	}
	if err := a.openKafka(ctx); err != nil {
		return nil, err
	}
	if err := a.openRedis(ctx); err != nil {
		return nil, err
	}
	if a.peer, err = cfg.Peer(version); err != nil {
		return nil, err
	}
	if err := a.makeRoles(); err != nil {
		return nil, err
	}
	return a, a.makeHealth()
}

func (a *app) openKafka(ctx context.Context) (err error) {
	if a.kafka, err = a.cfg.Stream(a.log); err != nil {
		return err
	}
	if len(a.kafka.Brokers) > 0 {
		if a.told != nil {
			a.told.Waits(a.kafka)
		}
		return stream.CheckCluster(ctx, a.kafka)
	}
	broker, err := stream.OpenEmbedded(stream.EmbeddedOptions{
		Dir: kafkaFolder(a.cfg), SyncAlways: a.cfg.Data.Sync == config.SyncAlways, Log: a.log,
	})
	if err != nil {
		return err
	}
	a.close = append(a.close, broker.Close)
	broker.Attach(a.kafka)
	if _, err := stream.ApplyTopics(ctx, a.kafka); err != nil {
		return err
	}
	return stream.MarkCluster(ctx, a.kafka)
}

// kafkaFolder is where the embedded Kafka has its files.
func kafkaFolder(cfg *config.Config) string { return filepath.Join(cfg.DataDir, "kafka") }

func (a *app) openRedis(ctx context.Context) error {
	c, err := a.cfg.Registry()
	if err != nil {
		return err
	}
	redis.SetLogger(redisLog{a.log})
	if a.redis, err = registry.OpenRedis(c); err != nil {
		return err
	}
	a.close = append(a.close, func() {
		if err := a.redis.Close(); err != nil {
			a.log.Warn("closing Redis", "err", err)
		}
	})
	if a.redis.Embedded && a.cfg.UsesRedis() { // else nothing reads it, and nobody should be told that the registry is here
		return registry.Rebuild(ctx, a.kafka, registry.New(a.redis), nil)
	}
	return nil
}

// redisLog takes what the Redis client would print. Roles say themselves when Redis is away.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(_ context.Context, format string, v ...any) {
	l.log.Debug(fmt.Sprintf(format, v...), "part", "redis-client")
}

func (a *app) makeRoles() error {
	devices := registry.New(a.redis)
	for name, make := range map[string]func() (runner, error){
		"registry": func() (runner, error) { return registry.NewApplier(a.kafka, devices), nil },
		"producer": func() (runner, error) { return a.producer() },
		"trigger":  func() (runner, error) { return a.triggers(devices) },
		"fanout": func() (runner, error) {
			return fanout.New(fanout.Options{Kafka: a.kafka, Registry: devices, Budget: a.cfg.Fanout.Budget}), nil
		},
		"senders.apns":    func() (runner, error) { return a.apns() },
		"senders.fcm":     func() (runner, error) { return a.fcm() },
		"senders.webpush": func() (runner, error) { return a.webpush() },
		"ledger": func() (runner, error) {
			o := ledger.Options{Kafka: a.kafka, Redis: a.redis, Prefix: a.redis.Prefix, AutoPause: map[string]ledger.AutoPause{}}
			for name, app := range a.cfg.Apps {
				o.AutoPause[name] = ledger.AutoPause(app.AutoPause)
			}
			return ledger.New(o), nil
		},
		"replay": func() (runner, error) { return replay.New(a.kafka), nil },
	} {
		if !a.cfg.Runs(name) {
			continue
		}
		r, err := make()
		if err != nil {
			return fmt.Errorf("role %s: %w", name, err)
		}
		a.roles = append(a.roles, role{name, r.Run})
	}
	return nil
}

type runner interface {
	Run(ctx context.Context) error
}

// Run runs every role until ctx is done or one fails for good, and returns when all have stopped.
func (a *app) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.kafka.Watch(ctx) })
	group.Go(func() error { return lanes.NewHerald(a.kafka, a.health.Lanes(), a.peer).Run(ctx) })
	if a.told != nil {
		a.told.Begin(a.health)
		defer context.AfterFunc(ctx, a.told.Stop)()
	}
	for _, r := range a.roles {
		group.Go(func() error {
			if err := r.run(ctx); err != nil {
				return fmt.Errorf("role %s: %w", r.name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// Close lets go of what openApp opened, in the other order. Run must have returned.
func (a *app) Close() {
	for _, c := range slices.Backward(a.close) {
		c()
	}
	a.close = nil
}

func (a *app) producer() (runner, error) {
	limit, err := a.connections()
	if err != nil {
		return nil, err
	}
	listener, err := listen.On(a.cfg.Listen, listen.Options{Name: "listen", Limit: limit, Log: a.log})
	if err != nil {
		return nil, err
	}
	a.address = listener.Addr().String()
	if a.cfg.TLS.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(a.cfg.TLS.CertFile, a.cfg.TLS.KeyFile)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("tls.cert_file, tls.key_file: %w", err), listener.Close())
		}
		listener = tls.NewListener(listener, &tls.Config{
			Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		})
	}
	o := producer.Options{
		Listener: listener, Kafka: a.kafka, Redis: a.redis, Version: version, Log: a.log, Peer: a.peer,
		Keys: map[string][]producer.Key{}, AllowHosts: map[string][]string{},
	}
	for _, k := range a.cfg.Operators {
		o.Operators = append(o.Operators, apiKey(k.Name, k.Hash, nil))
	}
	for name, app := range a.cfg.Apps {
		keys := make([]producer.Key, len(app.Keys))
		for i, k := range app.Keys {
			keys[i] = apiKey(k.Name, k.Hash, k.Scopes)
		}
		o.Keys[name] = keys
		if app.WebPush != nil {
			o.AllowHosts[name] = app.WebPush.AllowHosts
		}
	}
	server, err := producer.New(o)
	if err != nil {
		return nil, err
	}
	a.health = server.Health()
	return server, nil
}

// apiKey takes a hash that Validate has checked: "sha256:" and 64 hex digits.
func apiKey(name, hash string, scopes []string) producer.Key {
	sum, _ := hex.DecodeString(strings.TrimPrefix(hash, "sha256:"))
	return producer.Key{Name: name, Hash: [sha256.Size]byte(sum), Scopes: scopes}
}

func (a *app) triggers(devices *registry.Registry) (runner, error) {
	o := fanout.TriggerOptions{Kafka: a.kafka, Registry: devices, Redis: a.redis}
	for name, app := range a.cfg.Apps {
		if app.Rules != nil { // said, if only that there are none
			o.Apps = append(o.Apps, name)
		}
		for _, r := range app.Rules {
			m, err := r.Message.Proto()
			if err != nil {
				return nil, fmt.Errorf("rule %s of app %s: %w", r.Name, name, err)
			}
			rule := fanout.Rule{App: name, Name: r.Name, Event: r.Event, When: r.When, Message: m}
			for _, p := range r.Platforms {
				platform, _ := schemas.ParsePlatform(p) // checked by Validate
				rule.Platforms = append(rule.Platforms, platform)
			}
			o.Rules = append(o.Rules, rule)
		}
	}
	return fanout.NewTriggers(o)
}

func (a *app) apns() (runner, error) {
	apps := map[string]apns.Config{}
	for name, app := range a.cfg.Apps {
		if app.APNs == nil {
			continue
		}
		c := app.APNs
		files, err := readFiles(c.KeyFile, c.P12File, c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("app %s: %w", name, err)
		}
		apps[name] = apns.Config{
			Key: files[0], KeyID: c.KeyID, TeamID: c.TeamID,
			Certificate: files[1], Password: c.P12Password.Reveal(),
			Topic: c.Topic, URL: c.URL, SandboxURL: c.SandboxURL, CA: files[2],
			Wire: a.cfg.Senders.Transport.APNs == config.Wire,
		}
	}
	p, err := apns.New(apps, a.log)
	return a.senders(p, err)
}

func (a *app) fcm() (runner, error) {
	apps := map[string]fcm.Config{}
	for name, app := range a.cfg.Apps {
		if app.FCM == nil {
			continue
		}
		files, err := readFiles(app.FCM.ServiceAccountFile, app.FCM.CAFile)
		if err != nil {
			return nil, fmt.Errorf("app %s: %w", name, err)
		}
		apps[name] = fcm.Config{
			ServiceAccount: files[0], URL: app.FCM.URL, TokenURL: app.FCM.TokenURL, CA: files[1], PerMinute: app.FCM.PerMinute,
			Wire: a.cfg.Senders.Transport.FCM == config.Wire,
		}
	}
	p, err := fcm.New(apps, a.log)
	return a.senders(p, err)
}

func (a *app) webpush() (runner, error) {
	apps := map[string]webpush.Config{}
	for name, app := range a.cfg.Apps {
		if app.WebPush == nil {
			continue
		}
		c := app.WebPush
		files, err := readFiles(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("app %s: %w", name, err)
		}
		apps[name] = webpush.Config{
			PublicKey: c.PublicKey, PrivateKey: c.PrivateKey.Reveal(), Subject: c.Subject, AllowHosts: c.AllowHosts, CA: files[0],
			Padding: c.Padding, PerMinute: c.PerMinute, Wire: a.cfg.Senders.Transport.WebPush == config.Wire,
		}
	}
	p, err := webpush.New(apps, a.log)
	return a.senders(p, err)
}

func (a *app) senders(p senders.Provider, err error) (runner, error) {
	if err != nil {
		return nil, err
	}
	var classes []pb.Class
	for _, c := range schemas.Classes {
		if a.cfg.Runs(schemas.LaneRole(p.Platform(), c)) {
			classes = append(classes, c)
		}
	}
	platform := senders.NewPlatform(a.kafka, p, classes)
	platform.Timeout = a.cfg.Senders.Timeout
	return platform, nil
}

// readFiles reads each named file; an empty name gives nil.
func readFiles(names ...string) ([][]byte, error) {
	contents := make([][]byte, len(names))
	for i, name := range names {
		if name == "" {
			continue
		}
		var err error
		if contents[i], err = os.ReadFile(name); err != nil {
			return nil, err
		}
	}
	return contents, nil
}
