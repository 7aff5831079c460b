package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"

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
	if err := os.Remove(filepath.Join(dir, "closed")); err != nil { // that was not this one's end
		return err
	}
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.DataDir(dir),
		kfake.BrokerConfigs(map[string]string{"log.segment.bytes": "16777216"}), // as in stream.StartEmbedded
		kfake.ListenFn(func(string, string) (net.Listener, error) {
			l, err := net.Listen("tcp", listen)
			return advertised{l, advertise}, err
		}),
	)
	if err != nil {
		return fmt.Errorf("embedded broker: %w", err)
	}
	defer cluster.Close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	return nil
}

type advertised struct {
	net.Listener
	address string
}

func (a advertised) Addr() net.Addr { return address(a.address) }

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }
