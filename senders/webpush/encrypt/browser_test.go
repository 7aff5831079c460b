package encrypt

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
)

// browser is a subscription's private half, and reads messages as RFC 8291 has a browser do it. It shares no line with
// what is tested: the derivation is written out in HMACs, as section 3.4 has it.
type browser struct {
	key  *ecdh.PrivateKey
	auth []byte
}

func newBrowser(t testing.TB) browser {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	auth := make([]byte, 16)
	_, _ = rand.Read(auth)
	return browser{key, auth}
}

func hmacOf(key []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}

// keys are section 3.4's CEK and NONCE.
func (b browser) keys(body []byte) (cek, nonce []byte, err error) {
	salt, sender := body[:16], body[21:86]
	public, err := ecdh.P256().NewPublicKey(sender)
	if err != nil {
		return nil, nil, err
	}
	secret, err := b.key.ECDH(public)
	if err != nil {
		return nil, nil, err
	}
	combine := hmacOf(b.auth, string(secret))
	ikm := hmacOf(combine, "WebPush: info\x00", string(b.key.PublicKey().Bytes()), string(sender), "\x01")
	prk := hmacOf(salt, string(ikm))
	return hmacOf(prk, "Content-Encoding: aes128gcm\x00\x01")[:16], hmacOf(prk, "Content-Encoding: nonce\x00\x01")[:12], nil
}

// decrypt also fails for what section 4 forbids to send.
func (b browser) decrypt(body []byte) ([]byte, error) {
	if len(body) < 86+17 || len(body) > 4096 || body[20] != 65 {
		return nil, fmt.Errorf("a body of %d bytes", len(body))
	}
	if size := binary.BigEndian.Uint32(body[16:]); int(size) <= len(body)-86 {
		return nil, fmt.Errorf("a record size of %d for a record of %d bytes, which must be less", size, len(body)-86)
	}
	cek, nonce, err := b.keys(body)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(cek)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	padded, err := gcm.Open(nil, nonce, body[86:], nil)
	if err != nil {
		return nil, err
	}
	for i := len(padded) - 1; i >= 0; i-- {
		switch padded[i] {
		case 0:
			continue
		case 2:
			return padded[:i], nil
		}
		return nil, fmt.Errorf("delimiter %d", padded[i])
	}
	return nil, errors.New("no delimiter")
}
