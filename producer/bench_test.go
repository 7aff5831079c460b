package producer_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
	"github.com/belfry/belfry/stream/streamtest"
)

// deviceLine is one of a usual size, about 330 bytes.
func deviceLine(i int) string {
	return fmt.Sprintf(`{"id":"d-%07d","user":"u-%07d","platform":"apns","locale":"en-GB","app_version":"3.2.1","time_zone":"Europe/Paris","tags":["beta","news"],"attributes":{"first_name":"Ada","level":%d,"paying":true},"apns":{"token":"a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c%08x","environment":"production"}}`+"\n", i, i/2, i%100, i)
}

// eventLine is one of a usual size, about 180 bytes.
func eventLine(i int) string {
	return fmt.Sprintf(`{"id":"order-%07d-shipped","name":"order.shipped","user":"u-%07d","at":"2026-11-24T09:30:00Z","fields":{"carrier":"Poste","parcels":%d,"express":true}}`+"\n", i, i/2, i%10)
}

// BenchmarkBulkDevices and BenchmarkBulkEvents send lines through the API; BenchmarkBareProducer writes the devices' records
// with nothing but franz-go. One operation is one line. `belfry bench intake` measures the one against the other.
func BenchmarkBulkDevices(b *testing.B) { benchmarkBulk(b, "/v1/devices/bulk", deviceLine) }

func BenchmarkBulkEvents(b *testing.B) { benchmarkBulk(b, "/v1/events", eventLine) }

func benchmarkBulk(b *testing.B, path string, line func(i int) string) {
	a := start(b)
	var body bytes.Buffer
	body.Grow(b.N * (len(line(b.N)) + 1))
	for i := range b.N {
		body.WriteString(line(i))
	}
	b.ReportAllocs()
	b.SetBytes(int64(body.Len() / b.N))
	b.ResetTimer()
	r, err := http.NewRequestWithContext(b.Context(), "POST", a.url+path, &body)
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+allKey)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkBareProducer(b *testing.B) {
	k := streamtest.Kafka(b)
	client := streamtest.Client(b, k, kgo.MaxBufferedRecords(8192))
	_, value := registrytest.Record(b, device("d-0000000", "u-0000000", onAPNs, func(d *pb.Device) {
		d.Locale, d.AppVersion, d.TimeZone, d.Tags = "en-GB", "3.2.1", "Europe/Paris", []string{"beta", "news"}
		d.Attributes = map[string]*pb.Value{
			"first_name": {Kind: &pb.Value_Text{Text: "Ada"}}, "level": {Kind: &pb.Value_Number{Number: 12}},
			"paying": {Kind: &pb.Value_Flag{Flag: true}},
		}
	}))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		key := fmt.Appendf(nil, "shop/d-%07d", i)
		client.Produce(b.Context(), &kgo.Record{Topic: k.Topic(schemas.TopicDevices), Key: key, Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
		})
	}
	if err := client.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}
