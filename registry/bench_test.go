package registry_test

import (
	"fmt"
	"testing"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/registry/registrytest"
	"github.com/belfry/belfry/schemas"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// phone is a device as apps register them, some 180 bytes.
func phone(i int) *pb.Device {
	return &pb.Device{
		App: "shop", Id: fmt.Sprintf("device-%08d", i), User: fmt.Sprintf("user-%08d", i), Platform: apns,
		Locale: "fr-CA", AppVersion: "3.2.1", TimeZone: "America/Toronto", Tags: []string{"beta", "news"},
		Attributes: map[string]*pb.Value{
			"level": {Kind: &pb.Value_Number{Number: float64(i % 50)}},
			"plan":  {Kind: &pb.Value_Text{Text: "pro"}},
		},
		Target:       &pb.Target{Kind: &pb.Target_Apns{Apns: &pb.ApnsTarget{Token: fmt.Appendf(nil, "%032d", i)}}},
		RegisteredAt: 1_760_000_000_000,
	}
}

const population = 200_000

func populated(b *testing.B) *registry.Registry {
	var devices []*pb.Device
	for i := range population {
		devices = append(devices, phone(i))
	}
	return registrytest.Registry(b, registrytest.Redis(b), devices...)
}

func perDevice(b *testing.B, devices int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*devices), "ns/device")
}

func BenchmarkScan(b *testing.B) {
	g := populated(b)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		if err := g.Scan(b.Context(), "shop", apns, 0, schemas.Shards, registry.Wanted{}, func(*registry.Row) error { n++; return nil }); err != nil {
			b.Fatal(err)
		}
		if n != population {
			b.Fatal(n)
		}
	}
	perDevice(b, population)
}

func BenchmarkApply(b *testing.B) {
	g := registrytest.Registry(b, registrytest.Redis(b))
	var changes []registry.Change
	for i := range 1000 {
		key, value := registrytest.Record(b, phone(i))
		c, _, err := registry.DecodeChange(key, value)
		if err != nil {
			b.Fatal(err)
		}
		changes = append(changes, c)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Apply(b.Context(), changes); err != nil {
			b.Fatal(err)
		}
	}
	perDevice(b, len(changes))
}

func BenchmarkMatch(b *testing.B) {
	d := phone(12)
	for _, source := range []string{
		`platform == "apns"`,
		`version(app_version) >= version("3.2")`,
		`attributes.level > 10 and "news" in tags`,
		`language in ["fr", "de"] and (attributes.plan == "pro" or "beta" in tags) and registered_at > date("2025-01-01")`,
		`user matches "^user-0+1"`,
	} {
		b.Run(source, func(b *testing.B) {
			f, err := registry.CompileFilter(source)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Match(d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
