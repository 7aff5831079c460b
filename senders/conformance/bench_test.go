package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/senders"
	"github.com/belfry/belfry/senders/apns"
	"github.com/belfry/belfry/senders/exchange/exchangetest"
	"github.com/belfry/belfry/stream"
	"github.com/belfry/belfry/stream/streamtest"
)

// BenchmarkLane is a whole APNs lane over package wire, from a delivery's record to its outcome committed. Broker and
// provider are in this process too, and in its CPU: compare, and see `belfry bench lane-apns` for the lane alone.
func BenchmarkLane(b *testing.B) {
	k := streamtest.Kafka(b)
	url, ca := exchangetest.Quick(b)
	p, err := apns.New(map[string]apns.Config{"demo": {
		Key: signingKey(b), KeyID: "KEY1234567", TeamID: "TEAM123456", Topic: "com.example.demo", URL: url, CA: ca, Wire: true,
	}}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	fill(b, k)
	cpu := processCPU()
	b.ReportAllocs()
	b.ResetTimer()
	streamtest.Run(b, senders.NewPlatform(k, p, schemas.Classes).Run)
	n := 0
	streamtest.Read(b, k, func(r *kgo.Record) bool {
		batch := &pb.ResultBatch{}
		if err := proto.Unmarshal(r.Value, batch); err != nil {
			b.Fatal(err)
		}
		n += len(batch.Results)
		return n < b.N
	}, schemas.TopicResults(pb.Platform_PLATFORM_APNS))
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pushes/s")
	b.ReportMetric(float64(processCPU()-cpu)/float64(b.N), "cpu-ns/op")
}

// fill puts b.N deliveries of one campaign on the bulk topic.
func fill(b *testing.B, k *stream.Kafka) {
	b.Helper()
	m := &pb.Message{Content: &pb.Content{Title: "Hello {{ attributes.first_name }}", Body: "You are on level {{ attributes.level }}"}}
	c, err := proto.Marshal(&pb.Campaign{App: "demo", Id: "c1", State: pb.CampaignState_CAMPAIGN_STATE_RUNNING, Message: m})
	if err != nil {
		b.Fatal(err)
	}
	streamtest.Produce(b, k, &kgo.Record{Topic: schemas.TopicCampaigns, Key: schemas.Key("demo", "c1"), Value: c})
	client := streamtest.Client(b, k, kgo.MaxBufferedRecords(100_000))
	for i := range b.N {
		device := fmt.Sprint("device-", i)
		id := schemas.DeliveryID("demo", "c1", device, 0)
		value, err := proto.Marshal(&pb.Delivery{
			Id: id[:], App: "demo", Run: "c1", Device: device, Class: pb.Class_CLASS_BULK, Locale: "en-GB",
			Target:    &pb.Target{Kind: &pb.Target_Apns{Apns: &pb.ApnsTarget{Token: make([]byte, 32)}}},
			Variables: map[string]string{"attributes.first_name": "Ada", "attributes.level": "12"},
			ExpiresAt: time.Now().Add(time.Hour).UnixMilli(), CreatedAt: time.Now().UnixMilli(), RegisteredAt: 1,
		})
		if err != nil {
			b.Fatal(err)
		}
		topic := k.Topic(schemas.TopicSend(pb.Platform_PLATFORM_APNS, pb.Class_CLASS_BULK))
		client.Produce(b.Context(), &kgo.Record{Topic: topic, Key: schemas.Key("demo", device), Value: value}, nil)
	}
	if err := client.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func signingKey(b *testing.B) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		b.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// processCPU is the time that this process has had on all cores.
func processCPU() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
