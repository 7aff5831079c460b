package fanout

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// codecBatch is how many deliveries one commit writes to one partition, about: commitBytes over 12 partitions.
const codecBatch = 1200

// BenchmarkCodec compares the codecs on what a commit writes to one partition: CPU of this process to compress it, and of
// a reader to get it back, in seconds per million deliveries; and bytes of each on disk and wire. Targets are as random
// as providers make them, which is most of a delivery that no codec makes smaller.
func BenchmarkCodec(b *testing.B) {
	for _, p := range []struct {
		name   string
		target func(i int) *pb.Target
	}{
		{"apns", func(i int) *pb.Target {
			return &pb.Target{Kind: &pb.Target_Apns{Apns: &pb.ApnsTarget{Token: token(i)}}}
		}},
		{"fcm", func(i int) *pb.Target {
			return &pb.Target{Kind: &pb.Target_Fcm{Fcm: &pb.FcmTarget{Token: fcmToken(i)}}}
		}},
	} {
		batch := deliveries(b, p.target)
		for _, codec := range []struct {
			name  string
			codec kgo.CompressionCodec
		}{
			{"none", kgo.NoCompression()},
			{"snappy", kgo.SnappyCompression()},
			{"lz4", kgo.Lz4Compression()},
			{"zstd", kgo.ZstdCompression()},
		} {
			b.Run(p.name+"/"+codec.name, func(b *testing.B) { benchmarkCodec(b, batch, codec.codec) })
		}
	}
}

func benchmarkCodec(b *testing.B, batch []byte, codec kgo.CompressionCodec) {
	c, err := kgo.DefaultCompressor(codec)
	if err != nil {
		b.Fatal(err)
	}
	d := kgo.DefaultDecompressor()
	size := len(batch)
	var there, back time.Duration
	var buf bytes.Buffer
	n := 0
	for b.Loop() {
		n++
		if c == nil {
			continue // no codec: nothing to do
		}
		buf.Reset()
		at := processCPU()
		small, kind := c.Compress(&buf, batch)
		there += processCPU() - at
		at = processCPU()
		plain, err := d.Decompress(small, kind)
		back += processCPU() - at
		if err != nil || !bytes.Equal(plain, batch) {
			b.Fatal(err)
		}
		size = len(small)
	}
	per := float64(n * codecBatch)
	b.ReportMetric(there.Seconds()/per*1e6, "write-s/M")
	b.ReportMetric(back.Seconds()/per*1e6, "read-s/M")
	b.ReportMetric(float64(size)/codecBatch, "B/delivery")
	b.ReportMetric(0, "ns/op")
}

// fcmToken is as long and as random as Firebase's.
func fcmToken(i int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	var b []byte
	for n := range 5 {
		for _, c := range token(5*i + n) {
			b = append(b, letters[c%64])
		}
	}
	return string(b[:22]) + ":APA91b" + string(b[22:156])
}

// deliveries are a batch's records, as they lie one after the other in it.
func deliveries(b *testing.B, target func(int) *pb.Target) (batch []byte) {
	c := blast("01K0BLAST0000000000000")
	r, err := compile(c)
	if err != nil {
		b.Fatal(err)
	}
	x := newExpansion(c, r, apns, epoch)
	for i := range codecBatch {
		d := phone(i * 12)
		if err := x.add(d, encoded(b, target(i*12))); err != nil {
			b.Fatal(err)
		}
	}
	for i, o := range x.outs { // KIP-98's record: length, attributes, timestamp and offset delta, key, value, headers
		batch = binary.AppendVarint(batch, int64(len(o.Key)+len(o.Value)+8))
		batch = binary.AppendVarint(append(batch, 0, 0), int64(i))
		batch = append(binary.AppendVarint(batch, int64(len(o.Key))), o.Key...)
		batch = append(binary.AppendVarint(batch, int64(len(o.Value))), o.Value...)
		batch = append(batch, 0)
	}
	return batch
}
