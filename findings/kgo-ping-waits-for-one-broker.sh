#!/usr/bin/env bash
# franz-go v1.22.3: Client.Ping says that no broker can be reached where the first one stands still and the others answer.
#
# Guess:  Ping "returns whether any broker is reachable, iterating over any discovered broker or seed broker until one returns a
#         successful response": with a broker that takes connections and answers nothing (a stopped process, a disk that hangs) and
#         one that is well, Ping with five seconds is nil.
# Seen:   it asks one after another, and each for as long as the context lasts: the first takes all five seconds, the second is never
#         asked, and Ping is "context deadline exceeded". In the other order it is nil at once. A readiness check or a watchdog made
#         of it takes a cluster that has lost one broker of three for one that is away.
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
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	check(err)
	defer cluster.Close()
	well := cluster.ListenAddrs()[0]
	stands, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go func() {
		for {
			c, err := stands.Accept()
			if err != nil {
				return
			}
			go io.Copy(io.Discard, c)
		}
	}()
	first := ping(stands.Addr().String(), well)
	last := ping(well, stands.Addr().String())
	fmt.Println("the one that stands first:", first)
	fmt.Println("the one that stands last: ", last)
	if first == nil || last != nil {
		fmt.Println("this is not what was seen before")
		os.Exit(1)
	}
}

func ping(seeds ...string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(seeds...))
	check(err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return client.Ping(ctx)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
GO
export GOFLAGS=-mod=mod GOMODCACHE="$dir/mod" GOCACHE="$dir/cache"
go get github.com/twmb/franz-go@v1.22.3 github.com/twmb/franz-go/pkg/kfake@v0.0.0-20260918054303-01f206a7e32c >/dev/null 2>&1
go run .
