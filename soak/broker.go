package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
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
	stream.FillFetches(cluster)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	wanted := make(chan os.Signal, 1)
	signal.Notify(wanted, syscall.SIGUSR1)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wanted:
			forge(cluster)
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
			return refuse(req, f.err.Code), nil, true
		})
	}
}

// refuse answers a request with one error, in all the places where it has any.
func refuse(req kmsg.Request, code int16) kmsg.Response {
	resp := req.ResponseKind()
	switch resp := resp.(type) {
	case *kmsg.ProduceResponse:
		for _, t := range req.(*kmsg.ProduceRequest).Topics {
			topic := kmsg.ProduceResponseTopic{Topic: t.Topic, TopicID: t.TopicID}
			for _, p := range t.Partitions {
				topic.Partitions = append(topic.Partitions, kmsg.ProduceResponseTopicPartition{Partition: p.Partition, ErrorCode: code})
			}
			resp.Topics = append(resp.Topics, topic)
		}
	case *kmsg.TxnOffsetCommitResponse:
		for _, t := range req.(*kmsg.TxnOffsetCommitRequest).Topics {
			topic := kmsg.TxnOffsetCommitResponseTopic{Topic: t.Topic, TopicID: t.TopicID}
			for _, p := range t.Partitions {
				topic.Partitions = append(topic.Partitions, kmsg.TxnOffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: code})
			}
			resp.Topics = append(resp.Topics, topic)
		}
	case *kmsg.EndTxnResponse:
		resp.ErrorCode = code
	case *kmsg.HeartbeatResponse:
		resp.ErrorCode = code
	case *kmsg.JoinGroupResponse:
		resp.ErrorCode = code
	case *kmsg.SyncGroupResponse:
		resp.ErrorCode = code
	}
	return resp
}

type advertised struct {
	net.Listener
	address string
}

func (a advertised) Addr() net.Addr { return address(a.address) }

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }
