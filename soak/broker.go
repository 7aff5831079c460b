package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/belfry/belfry/stream"
)

// runBroker is the embedded broker as a process of its own, so that it can be killed apart from the roles. It listens on
// one address and tells clients another, where a proxy is.
func runBroker(dir, listen, advertise string) error {
	// After a kill, Belfry's own way to start it mends what kfake leaves undone. Clients, which wait for this one, must not
	// come in between.
	mended, err := stream.StartEmbedded(dir)
	if err != nil {
		return err
	}
	mended.Close()
	broker, err := stream.OpenEmbedded(stream.EmbeddedOptions{Dir: dir, Listen: func(string) (net.Listener, error) {
		l, err := net.Listen("tcp", listen)
		return advertised{l, advertise}, err
	}})
	if err != nil {
		return err
	}
	defer broker.Close()
	cluster := broker.Cluster()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	refused := &refuser{cluster: cluster, file: (&kafka{dir: dir}).order()}
	refused.begin()
	forging, refusing := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(forging, syscall.SIGUSR1)
	signal.Notify(refusing, syscall.SIGUSR2)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-forging:
			forge(cluster)
		case <-refusing:
			refused.read()
		}
	}
}

// forged begins each line of the broker's log that tells of an answer that was forged.
const forged = "forged: "

// forge has a broker answer some of the next requests with what real ones say when partitions and coordinators move, and
// when a member is too late.
func forge(cluster *kfake.Cluster) {
	for _, f := range []struct {
		key   kmsg.Key
		times int
		err   *kerr.Error
	}{
		{kmsg.Produce, 3, kerr.NotLeaderForPartition},
		{kmsg.TxnOffsetCommit, 3, kerr.CoordinatorLoadInProgress},
		{kmsg.EndTxn, 3, kerr.ConcurrentTransactions},
		{kmsg.Heartbeat, 3, kerr.RebalanceInProgress},
		{kmsg.Heartbeat, 1, kerr.IllegalGeneration},
		{kmsg.JoinGroup, 2, kerr.NotCoordinator},
		{kmsg.SyncGroup, 2, kerr.RebalanceInProgress},
	} {
		left := f.times
		cluster.ControlKey(f.key.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
			if left--; left > 0 {
				cluster.KeepControl() // and it is kept until it is dropped
			} else {
				cluster.DropControl()
			}
			fmt.Printf("%s%s %s\n", forged, f.key.Name(), f.err.Message)
			return stream.Refuse(req, f.err), nil, true
		})
	}
}

type advertised struct {
	net.Listener
	address string
}

func (a advertised) Addr() net.Addr { return address(a.address) }

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }
