package simulator

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// The header of an aes128gcm body (RFC 8188 section 2.1): salt, record size, and the sender's public key, which is an
// uncompressed P-256 point (RFC 8291 section 4).
const (
	saltSize   = 16
	pointSize  = 65
	headerSize = saltSize + 4 + 1 + pointSize
	tagSize    = 16
)

// decrypt does what a browser does with a push message's body.
func decrypt(body []byte, private *ecdh.PrivateKey, auth []byte) ([]byte, error) {
	if len(body) < headerSize+1+tagSize {
		return nil, errors.New("shorter than a header and an empty record")
	}
	salt, rest := body[:saltSize], body[saltSize:]
	recordSize, keySize := binary.BigEndian.Uint32(rest), rest[4]
	if keySize != pointSize {
		return nil, fmt.Errorf("a key id of %d bytes, not the 65 of a P-256 point", keySize)
	}
	sender, record := body[headerSize-pointSize:headerSize], body[headerSize:]
	if recordSize < 18 || uint64(len(record)) > uint64(recordSize) {
		return nil, fmt.Errorf("%d bytes in records of %d: there must be one record", len(record), recordSize)
	}
	public, err := ecdh.P256().NewPublicKey(sender)
	if err != nil {
		return nil, errors.New("the sender's key is not a point on P-256")
	}
	key, nonce, err := contentKey(private, public, auth, salt)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	padded, err := gcm.Open(nil, nonce, record, nil)
	if err != nil {
		return nil, errors.New("not encrypted for this subscription's key and authentication secret")
	}
	return unpad(padded)
}

// contentKey derives the content encryption key and nonce (RFC 8291 section 3.4).
func contentKey(private *ecdh.PrivateKey, public *ecdh.PublicKey, auth, salt []byte) (key, nonce []byte, err error) {
	shared, err := private.ECDH(public)
	if err != nil {
		return nil, nil, err
	}
	info := make([]byte, 0, 14+2*pointSize)
	info = append(info, "WebPush: info\x00"...)
	info = append(info, private.PublicKey().Bytes()...)
	info = append(info, public.Bytes()...)
	ikm, err := hkdf.Key(sha256.New, shared, auth, string(info), 32)
	if err != nil {
		return nil, nil, err
	}
	prk, err := hkdf.Extract(sha256.New, ikm, salt)
	if err != nil {
		return nil, nil, err
	}
	if key, err = hkdf.Expand(sha256.New, prk, "Content-Encoding: aes128gcm\x00", 16); err != nil {
		return nil, nil, err
	}
	nonce, err = hkdf.Expand(sha256.New, prk, "Content-Encoding: nonce\x00", 12)
	return key, nonce, err
}

// unpad cuts a last record's padding: a 2 and zeros (RFC 8188 section 2).
func unpad(padded []byte) ([]byte, error) {
	for i := len(padded) - 1; i >= 0; i-- {
		switch padded[i] {
		case 0:
		case 2:
			return padded[:i], nil
		default:
			return nil, fmt.Errorf("the last record's delimiter is %d, not 2", padded[i])
		}
	}
	return nil, errors.New("the record has no delimiter")
}
