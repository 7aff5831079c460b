#!/usr/bin/env bash
# franz-go v1.22.3: EndTransaction(TryAbort) says nil after a TryCommit whose context ended, and the records are committed.
#
# Guess:  when TryCommit fails because its context ended while the broker was slow, TryAbort finds out, as its documentation says it
#         does after a commit "whose outcome is unconfirmed": its nil says that nothing of the transaction will be read.
# Seen:   it returns nil at once and asks nobody. The commit that was under way goes on, and a read_committed reader gets the record.
#         Whoever takes that nil for an abort and does the work again has done it twice. Only a new client of the same transactional
#         id, and then a look at what stands, tells. (Of a cancelled context the documentation says only that it "will likely leave the
#         client in an undesirable state".)
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
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func main() {
	aborted, committed := attempt()
	fmt.Printf("TryAbort says %v, committed records: %d\n", aborted, committed)
	if aborted != nil || committed != 1 {
		fmt.Println("this is not what was seen before")
		os.Exit(1)
	}
}

// attempt writes one record in a transaction whose commit is not answered in time, aborts it, and reads what was committed.
func attempt() (aborted error, committed int) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	check(err)
	defer cluster.Close()
	writer, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.TransactionalID("writer"))
	check(err)
	defer writer.Close()
	check(writer.BeginTransaction())
	check(writer.ProduceSync(context.Background(), &kgo.Record{Topic: "t", Value: []byte("order 4711")}).FirstErr())

	cluster.ControlKey(kmsg.EndTxn.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		time.Sleep(3 * time.Second) // a pause, and then it does what it was asked to
		return nil, nil, false
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	fmt.Println("TryCommit says", writer.EndTransaction(ctx, kgo.TryCommit))
	aborted = writer.EndTransaction(context.Background(), kgo.TryAbort)

	reader, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("t"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	check(err)
	defer reader.Close()
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end) && committed == 0; {
		poll, cancel := context.WithTimeout(context.Background(), time.Second)
		committed += reader.PollFetches(poll).NumRecords()
		cancel()
	}
	return aborted, committed
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
