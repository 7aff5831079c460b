// Package encrypt makes the body of a web push message: RFC 8291, which is the content coding aes128gcm of RFC 8188 under
// a key that the sender and the subscription agree on.
//
// The two things to know are [Append], which makes a body, and [Check], which tells early that none can be made.
package encrypt

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

const (
	// MaxBody is what every push service must take, in bytes (RFC 8030 section 7.2). Few take more.
	MaxBody = 4096
	// MaxPlaintext is what fits in MaxBody, in bytes (RFC 8291 section 4).
	MaxPlaintext = MaxBody - overhead

	saltSize  = 16
	pointSize = 65 // an uncompressed point on P-256 (RFC 8291 section 3.1)
	authSize  = 16 // RFC 8291 section 3.2
	tagSize   = 16
	// headerSize is salt, record size, the key's length and the key (RFC 8188 section 2.1).
	headerSize = saltSize + 4 + 1 + pointSize
	// overhead is what encryption adds without padding: the header, the delimiter and the tag.
	overhead = headerSize + 1 + tagSize
	// recordSize is said in the header, and must be greater than the one record there is (RFC 8291 section 4). It is the
	// same for all bodies, so that it tells nothing of them.
	recordSize = 4096
	// lastRecord ends the plaintext of the last record, before its padding of zeros (RFC 8188 section 2).
	lastRecord = 2
)

var (
	// ErrSubscription says that a subscription's keys are of no use: whoever registered it made or copied them wrong.
	ErrSubscription = errors.New("the subscription's keys are not a point on P-256 (65 bytes, uncompressed) and a secret of 16 bytes")
	// ErrTooLarge says that a plaintext has more than MaxPlaintext bytes.
	ErrTooLarge = fmt.Errorf("more than the %d bytes that a web push message may have", MaxPlaintext)
)

// Check fails with ErrSubscription where Append would, at a hundredth of its cost.
func Check(p256dh, auth []byte) error {
	_, err := subscription(p256dh, auth)
	return err
}

func subscription(p256dh, auth []byte) (*ecdh.PublicKey, error) {
	key, err := ecdh.P256().NewPublicKey(p256dh)
	if err != nil || len(auth) != authSize {
		return nil, ErrSubscription
	}
	return key, nil
}

// Append appends to dst the body that only the holder of the subscription (its public key p256dh and secret auth, as raw
// bytes) can read, and returns the extended buffer. Its length is padded to a multiple of bucket bytes, at most MaxBody;
// a bucket of 1 is no padding, less counts as 1, and more than MaxBody as MaxBody. Each body has a salt and a key pair of its own, from crypto/rand.
//
// It fails with ErrSubscription or ErrTooLarge, and returns dst as it was. plaintext must not overlap the capacity of
// dst. It is safe for concurrent use, and takes some 50 µs of a core, nine tenths of them P-256.
func Append(dst, plaintext, p256dh, auth []byte, bucket int) ([]byte, error) {
	peer, err := subscription(p256dh, auth)
	if err != nil {
		return dst, err
	}
	sender, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return dst, fmt.Errorf("generate a key pair: %w", err)
	}
	var salt [saltSize]byte
	_, _ = rand.Read(salt[:]) // it never fails
	return seal(dst, plaintext, peer, auth, sender, salt, bucket)
}

// seal is Append with the key pair and the salt given. They must never be used twice together: the same key and nonce
// would encrypt two texts.
func seal(dst, plaintext []byte, peer *ecdh.PublicKey, auth []byte, sender *ecdh.PrivateKey, salt [saltSize]byte, bucket int) ([]byte, error) {
	if len(plaintext) > MaxPlaintext {
		return dst, ErrTooLarge
	}
	aead, nonce, err := contentKey(peer, auth, sender, salt[:])
	if err != nil {
		return dst, fmt.Errorf("derive the content key: %w", err)
	}
	size := Size(len(plaintext), bucket)
	out := slices.Grow(dst, size)
	out = append(out, salt[:]...)
	out = binary.BigEndian.AppendUint32(out, recordSize)
	out = append(out, pointSize)
	out = append(out, sender.PublicKey().Bytes()...)
	start := len(out)
	out = append(out, plaintext...)
	out = append(out, lastRecord)
	padding := out[len(out) : len(dst)+size-tagSize]
	clear(padding)
	out = out[:len(out)+len(padding)]
	return aead.Seal(out[:start], nonce, out[start:], nil), nil
}

// Size is the length that a body of n ≤ MaxPlaintext bytes of plaintext has, in bytes.
func Size(n, bucket int) int {
	bucket = min(max(1, bucket), MaxBody)
	return min(MaxBody, (n+overhead+bucket-1)/bucket*bucket)
}

// contentKey derives the key and nonce of the only record (RFC 8291 section 3.4, RFC 8188 sections 2.2 and 2.3).
func contentKey(peer *ecdh.PublicKey, auth []byte, sender *ecdh.PrivateKey, salt []byte) (cipher.AEAD, []byte, error) {
	secret, err := sender.ECDH(peer)
	if err != nil {
		return nil, nil, err
	}
	info := make([]byte, 0, 14+2*pointSize+1)
	info = append(info, "WebPush: info\x00"...)
	info = append(info, peer.Bytes()...)
	info = append(info, sender.PublicKey().Bytes()...)
	shared := mac(auth, secret)
	ikm := mac(shared[:], append(info, first))
	prk := mac(salt, ikm[:])
	key := mac(prk[:], append(info[:0], "Content-Encoding: aes128gcm\x00\x01"...))
	nonce := mac(prk[:], append(info[:0], "Content-Encoding: nonce\x00\x01"...))
	block, err := aes.NewCipher(key[:16])
	if err != nil {
		return nil, nil, err
	}
	aead, err := cipher.NewGCM(block)
	return aead, nonce[:12], err
}

// first numbers the only block that is ever expanded: none of our keys is longer than a hash (RFC 5869 section 2.3).
const first = 1

// mac is HMAC-SHA256 (RFC 2104) of a key of at most 64 bytes and a message of at most 160. Of HKDF, which is extract(salt, key) =
// mac(salt, key) and expand(key, info) = mac(key, info | 1) here, crypto/hkdf makes 44 objects a message on the heap, as much
// work again as the hashes themselves.
func mac(key, message []byte) [sha256.Size]byte {
	var inner [sha256.BlockSize + 160]byte
	var outer [sha256.BlockSize + sha256.Size]byte
	copy(inner[:], key)
	copy(outer[:], key)
	for i := range sha256.BlockSize {
		inner[i] ^= 0x36
		outer[i] ^= 0x5c
	}
	n := copy(inner[sha256.BlockSize:], message)
	digest := sha256.Sum256(inner[:sha256.BlockSize+n])
	copy(outer[sha256.BlockSize:], digest[:])
	return sha256.Sum256(outer[:])
}
