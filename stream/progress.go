package stream

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A completion map says which records above a committed offset are done, so that a restart does not do them again. It
// travels in the commit's metadata:
//
//	version (1 byte) · the commit's nonce (8 bytes) · base offset (uvarint) · done offsets · CRC-32, all in base64
//
// Done offsets are runs (their lengths in offsets as uvarints, alternately unfinished and done) or a bitmap from base on,
// whichever is shorter: few long runs behind one slow record, or many short ones while one destination in four stands
// still. Offsets have holes (transaction markers, compaction): a run ends where the next record's offset begins, and a
// hole belongs to the run before it. The nonce tells, after a commit without an answer, whether this one took effect.
const (
	progressRuns   = 1
	progressBitmap = 2
	// maxProgress bounds the encoded map, in bytes. Brokers refuse metadata above offset.metadata.max.bytes, 4,096 by
	// default. A commit whose map does not fit waits until it does: outputs must not stand without their record here, or a
	// restart would make them twice.
	maxProgress = 3 << 10
	// What surely fits: so many runs, at 6 bytes each, or so many offsets, at a bit each.
	fitRuns    = 360
	fitOffsets = 17 << 10
)

// span is a range of done offsets: [from, to).
type span struct{ from, to int64 }

// encodeProgress writes the done spans above base, which are in order and not empty. It reports false when they do not fit.
func encodeProgress(nonce uint64, base int64, done []span) (string, bool) {
	b := seal(progressRuns, nonce, base, appendRuns(nil, base, done))
	if n := len(done); len(b) > maxProgress && done[n-1].to-base <= maxProgress*8 {
		b = seal(progressBitmap, nonce, base, bitmap(base, done))
	}
	return b, len(b) <= maxProgress
}

func seal(version byte, nonce uint64, base int64, body []byte) string {
	b := binary.BigEndian.AppendUint64([]byte{version}, nonce)
	b = binary.AppendUvarint(b, uint64(base))
	b = append(b, body...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return base64.RawStdEncoding.EncodeToString(b)
}

func appendRuns(b []byte, base int64, done []span) []byte {
	for _, s := range done {
		b = binary.AppendUvarint(b, uint64(s.from-base))
		b = binary.AppendUvarint(b, uint64(s.to-s.from))
		base = s.to
	}
	return b
}

func bitmap(base int64, done []span) []byte {
	b := make([]byte, (done[len(done)-1].to-base+7)/8)
	for _, s := range done {
		for i := s.from - base; i < s.to-base; i++ {
			b[i/8] |= 1 << (i % 8)
		}
	}
	return b
}

// decodeProgress reads what encodeProgress wrote for this base. A map with another base, a wrong checksum or spans out
// of order is an error, and must be ignored: then everything above base is done again.
func decodeProgress(base int64, meta string) (done []span, err error) {
	b, err := base64.RawStdEncoding.DecodeString(meta)
	if err != nil {
		return nil, fmt.Errorf("completion map: %w", err)
	}
	if len(b) < 1+8+1+crc32.Size {
		return nil, errors.New("completion map: too short")
	}
	b, sum := b[:len(b)-crc32.Size], binary.BigEndian.Uint32(b[len(b)-crc32.Size:])
	if crc32.ChecksumIEEE(b) != sum {
		return nil, errors.New("completion map: wrong checksum")
	}
	version, body := b[0], b[9:]
	at, err := uvarint(&body)
	if err != nil || at != base {
		return nil, fmt.Errorf("completion map: made for offset %d, not %d", at, base)
	}
	switch version {
	case progressRuns:
		return decodeRuns(base, body)
	case progressBitmap:
		return decodeBitmap(base, body), nil
	}
	return nil, fmt.Errorf("completion map: version %d is not known", version)
}

func decodeRuns(at int64, b []byte) (done []span, err error) {
	for len(b) > 0 {
		gap, err1 := uvarint(&b)
		run, err2 := uvarint(&b)
		from := at + gap
		if err1 != nil || err2 != nil || run == 0 || from < at || from+run < from {
			return nil, errors.New("completion map: a run is out of range")
		}
		at = from + run
		done = append(done, span{from, at})
	}
	return done, nil
}

func decodeBitmap(base int64, b []byte) (done []span) {
	for i := range int64(len(b)) * 8 {
		if b[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		if n := len(done); n > 0 && done[n-1].to == base+i {
			done[n-1].to++
			continue
		}
		done = append(done, span{base + i, base + i + 1})
	}
	return done
}

// uvarint takes a number below 2^61, so that two of them add without overflow.
func uvarint(b *[]byte) (int64, error) {
	v, n := binary.Uvarint(*b)
	if n <= 0 || v >= 1<<61 {
		return 0, errors.New("bad number")
	}
	*b = (*b)[n:]
	return int64(v), nil
}
