package simulator

import (
	"bytes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"strings"
)

// target is what a device's token says, and what its provider knows of it.
type target struct {
	service Service
	app     uint16
	index   uint32
	gone    bool
	// other: it belongs to another bundle id of the app's, was made with its former VAPID key, or is another sender's.
	other bool
	// renamed: its app has registered by the other of token and installation id since. It is never in a token.
	renamed bool
}

// sealer makes and reads tokens: one AES block that holds the target, and the same encrypted again as its proof. An
// AES block is a permutation, so tokens look random, differ, and cost some 20 ns to check.
type sealer struct{ name, proof, auth cipher.Block }

var targetMagic = []byte("blfy")

func newSealer(d deriver) *sealer {
	return &sealer{name: d.block("target name"), proof: d.block("target proof"), auth: d.block("webpush auth")}
}

func (s *sealer) seal(t target) [32]byte {
	var plain, out [32]byte
	copy(plain[:], targetMagic)
	plain[4] = byte(t.service)
	if t.gone {
		plain[5] |= 1
	}
	if t.other {
		plain[5] |= 2
	}
	binary.BigEndian.PutUint16(plain[6:], t.app)
	binary.BigEndian.PutUint32(plain[8:], t.index)
	s.name.Encrypt(out[:16], plain[:16])
	s.proof.Encrypt(out[16:], out[:16])
	return out
}

// openName reads a target from its first block, which has 64 bits of redundancy of its own.
func (s *sealer) openName(name []byte) (target, bool) {
	var p [16]byte
	s.name.Decrypt(p[:], name)
	if !bytes.Equal(p[:4], targetMagic) || binary.BigEndian.Uint32(p[12:]) != 0 || p[5] > 3 {
		return target{}, false
	}
	return target{
		service: Service(p[4]), gone: p[5]&1 != 0, other: p[5]&2 != 0,
		app: binary.BigEndian.Uint16(p[6:]), index: binary.BigEndian.Uint32(p[8:]),
	}, true
}

func (s *sealer) open(token []byte) (target, bool) {
	if len(token) != 32 {
		return target{}, false
	}
	var proof [16]byte
	s.proof.Encrypt(proof[:], token[:16])
	if !bytes.Equal(proof[:], token[16:]) {
		return target{}, false
	}
	return s.openName(token[:16])
}

// authSecret is a subscription's 16-byte authentication secret (RFC 8291 section 3.2). It stays, whatever becomes of the
// subscription.
func (s *sealer) authSecret(t target) []byte {
	token := s.seal(target{service: t.service, app: t.app, index: t.index})
	secret := make([]byte, 16)
	s.auth.Encrypt(secret, token[:16])
	return secret
}

// apnsToken is 64 hex digits, as Apple's are.
func (s *sealer) apnsToken(t target) string {
	b := s.seal(t)
	return hex.EncodeToString(b[:])
}

func (s *sealer) openAPNs(token string) (target, bool) {
	var b [32]byte
	if len(token) != 64 {
		return target{}, false
	}
	if _, err := hex.Decode(b[:], []byte(token)); err != nil {
		return target{}, false
	}
	return s.open(b[:])
}

// subscription is the token at the end of a Web Push endpoint.
func (s *sealer) subscription(t target) string {
	b := s.seal(t)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (s *sealer) openSubscription(token string) (target, bool) {
	var b [33]byte
	if len(token) != 43 {
		return target{}, false
	}
	if _, err := base64.RawURLEncoding.Strict().Decode(b[:], []byte(token)); err != nil {
		return target{}, false
	}
	return s.open(b[:32])
}

var (
	escapeChannel   = strings.NewReplacer("+", "%2b", "/", "%2f", "=", "%3d")
	unescapeChannel = strings.NewReplacer("%2b", "+", "%2f", "/", "%3d", "=")
)

// channel is the token in the query of a WNS channel's URL.
func (s *sealer) channel(t target) string {
	b := s.seal(t)
	return escapeChannel.Replace(base64.StdEncoding.EncodeToString(b[:]))
}

func (s *sealer) openChannel(token string) (target, bool) {
	b, err := base64.StdEncoding.DecodeString(unescapeChannel.Replace(token))
	if err != nil {
		return target{}, false
	}
	t, ok := s.open(b)
	return t, ok && token == s.channel(t)
}

const fcmInfix = ":APA91b"

// fid is a Firebase installation id: 22 base64url characters that begin with the four bits 0111, then 128 of its own.
func (s *sealer) fid(t target) string {
	b := s.seal(t)
	return fidOf(b[:16])
}

func fidOf(name []byte) string {
	var w [17]byte
	w[0] = 0x70
	for i, c := range name {
		w[i] |= c >> 4
		w[i+1] = c << 4
	}
	return base64.RawURLEncoding.EncodeToString(w[:])[:22]
}

func (s *sealer) openFID(fid string) (target, bool) {
	if len(fid) != 22 {
		return target{}, false
	}
	w, err := base64.RawURLEncoding.DecodeString(fid + "A")
	if err != nil || w[0]>>4 != 7 {
		return target{}, false
	}
	var name [16]byte
	for i := range name {
		name[i] = w[i]<<4 | w[i+1]>>4
	}
	return s.openName(name[:])
}

// fcmToken is a registration token: the installation's id and the token proper.
func (s *sealer) fcmToken(t target) string {
	b := s.seal(t)
	return fidOf(b[:16]) + fcmInfix + base64.RawURLEncoding.EncodeToString(b[:])
}

func (s *sealer) openFCM(token string) (target, bool) {
	fid, rest, ok := strings.Cut(token, fcmInfix)
	if !ok {
		return target{}, false
	}
	t, ok := s.openSubscription(rest)
	return t, ok && fid == s.fid(t)
}
