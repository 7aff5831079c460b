package main

import (
	"context"
	"time"

	"github.com/belfry/belfry/health"
	"github.com/belfry/belfry/listen"
)

// openHealth serves the health address, if there is one, until Close: also while Kafka or Redis is waited for.
func (a *app) openHealth() error {
	if a.cfg.Health == "" {
		return nil
	}
	listener, err := listen.On(a.cfg.Health, listen.Options{Name: "health", Limit: healthCallers, Log: a.log})
	if err != nil {
		return err
	}
	a.told = health.NewServer(listener, a.log)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := a.told.Serve(ctx); err != nil {
			a.log.Error("nobody sees any more how this process is: start it again", "health", a.cfg.Health, "err", err)
		}
	}()
	a.close = append(a.close, func() { stop(); <-ended })
	return nil
}

// healthCallers bounds the connections to the health address.
const healthCallers = 32

// makeHealth watches over the process where the API, which does so itself, is not among its roles.
func (a *app) makeHealth() (err error) {
	if a.health != nil {
		return nil
	}
	o := health.Options{Kafka: a.kafka, Peer: a.peer, Now: time.Now}
	if a.told != nil && a.cfg.UsesRedis() { // else nobody asks how the registry is
		o.Redis = a.redis
	}
	if a.health, err = health.New(o); err != nil {
		return err
	}
	a.roles = append(a.roles, role{"health", a.health.Run})
	return nil
}
