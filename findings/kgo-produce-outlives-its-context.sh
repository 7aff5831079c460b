#!/usr/bin/env bash
# franz-go v1.22.3: ProduceSync does not return when its context ends, once the record may have reached a broker.
#
# Guess:  a context of two seconds bounds ProduceSync, as it bounds every other call: with a broker that drops the connection on each
#         produce request, it fails after two seconds.
# Seen:   the default, idempotent producer never gives up a record of which it cannot know whether the broker has it. Ten seconds
#         later the call has not returned; RecordDeliveryTimeout does not end it either. A program that writes one last record when
#         it stops, "for two seconds at most", never stops while its broker is away.
#         kgo.AllowIdempotentProduceCancellation makes the context count, at the price of a possible double.
# Fails when that changes.
set -euo pipefail
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'MOD'
module finding

go 1.25
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func main() {
	plain := returnsWithin(10*time.Second, kgo.RecordDeliveryTimeout(3*time.Second))
	opted := returnsWithin(10*time.Second, kgo.AllowIdempotentProduceCancellation())
	fmt.Println("by default it returned within 10 s of a 2 s context:", plain)
	fmt.Println("with AllowIdempotentProduceCancellation:            ", opted)
	if plain || !opted {
		fmt.Println("this is not what was seen before")
		os.Exit(1)
	}
}

func returnsWithin(limit time.Duration, opt kgo.Opt) bool {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	check(err)
	defer cluster.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), opt)
	check(err)
	check(client.ProduceSync(context.Background(), &kgo.Record{Topic: "t", Value: []byte("while all is well")}).FirstErr())
	cluster.ControlKey(kmsg.Produce.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return nil, errors.New("gone"), true // the connection ends without an answer
	})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	returned := make(chan error, 1)
	go func() {
		returned <- client.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("the last one")}).FirstErr()
	}()
	select {
	case err := <-returned:
		fmt.Println("  returned:", err)
		return true
	case <-time.After(limit):
		client.Close() // which ends it
		<-returned
		return false
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
GO
export GOFLAGS=-mod=mod GOMODCACHE="$dir/mod" GOCACHE="$dir/cache"
go get github.com/twmb/franz-go@v1.22.3 github.com/twmb/franz-go/pkg/kfake@v0.0.0-20260918054303-01f206a7e32c github.com/twmb/franz-go/pkg/kmsg@v1.15.1 >/dev/null 2>&1
go run .
