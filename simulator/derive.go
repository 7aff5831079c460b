package simulator

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"math/big"
)

// deriver turns a seed into every key of a population, so that a simulator started again with the same seed trusts,
// and is trusted by, whoever was configured for the first. The keys are as public as the seed.
type deriver struct{ seed [8]byte }

func newDeriver(seed uint64) deriver {
	var d deriver
	binary.BigEndian.PutUint64(d.seed[:], seed)
	return d
}

// bytes is 32 bytes that depend on the seed, the label and n alone.
func (d deriver) bytes(label string, n uint64) []byte {
	m := hmac.New(sha256.New, d.seed[:])
	m.Write([]byte(label))
	m.Write(binary.BigEndian.AppendUint64([]byte{0}, n))
	return m.Sum(nil)
}

func (d deriver) block(label string) cipher.Block {
	b, err := aes.NewCipher(d.bytes(label, 0))
	if err != nil {
		panic(err) // a 32-byte key is always right
	}
	return b
}

// p256 is a P-256 key. A random 256-bit number is above the group's order once in 2^32: then the next one is taken.
func (d deriver) p256(label string, n uint64) *ecdsa.PrivateKey {
	for try := uint64(0); ; try++ {
		if k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d.bytes(label, n|try<<32)); err == nil {
			return k
		}
	}
}

// rsa2048 is an RSA key. crypto/rsa makes none from a seed, by intent.
func (d deriver) rsa2048(label string) *rsa.PrivateKey {
	e := big.NewInt(65537)
	one := big.NewInt(1)
	var counter uint64
	for {
		p, q := d.prime1024(label, &counter), d.prime1024(label, &counter)
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		exp := new(big.Int).ModInverse(e, phi)
		if exp == nil || p.Cmp(q) == 0 {
			continue
		}
		k := &rsa.PrivateKey{
			PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537},
			D:         exp, Primes: []*big.Int{p, q},
		}
		k.Precompute()
		if k.Validate() == nil {
			return k
		}
	}
}

func (d deriver) prime1024(label string, counter *uint64) *big.Int {
	for {
		var b []byte
		for range 4 {
			b = append(b, d.bytes(label, *counter)...)
			*counter++
		}
		b[0] |= 0xc0 // the product of two such primes has 2,048 bits
		b[len(b)-1] |= 1
		// Baillie-PSW alone: no composite that passes it is known.
		if p := new(big.Int).SetBytes(b); p.ProbablyPrime(0) {
			return p
		}
	}
}
