package main

import (
	"context"
	"fmt"
	"net"
	"os/signal"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
)

// runBroker is the embedded broker as a process of its own, so that it can be killed apart from the roles. It listens on
// one address and tells clients another, where a proxy is.
func runBroker(dir, listen, advertise string) error {
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
