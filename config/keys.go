package config

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/sideshow/apns2/certificate"
	"github.com/sideshow/apns2/token"
)

// parseP8 reads Apple's token key as the sender does.
func parseP8(data []byte) (*ecdsa.PrivateKey, error) {
	k, err := token.AuthKeyFromBytes(data)
	if err != nil {
		return nil, fmt.Errorf("is not a .p8 key: %w", err)
	}
	if k.Curve != elliptic.P256() {
		return nil, fmt.Errorf("is a key on %s; Apple's are on P-256", k.Params().Name)
	}
	return k, nil
}

// parseP12 reads Apple's certificate as the sender does.
func parseP12(data []byte, password Secret) (tls.Certificate, error) {
	c, err := certificate.FromP12Bytes(data, password.Reveal())
	if err != nil {
		return c, fmt.Errorf("is not a .p12 that this password opens: %w", err)
	}
	return c, nil
}

// serviceAccount is what Belfry needs of Firebase's JSON key.
type serviceAccount struct {
	Type        string `json:"type"`
	ProjectID   string `json:"project_id"`
	PrivateKey  string `json:"private_key"`
	ClientEmail string `json:"client_email"`
	TokenURI    string `json:"token_uri"`
}

func parseServiceAccount(data []byte) (*serviceAccount, error) {
	var s serviceAccount
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, errors.New("is not JSON")
	}
	if s.Type != "service_account" {
		return nil, fmt.Errorf(`has the type %q; a service account's key has "service_account"`, s.Type)
	}
	if s.ProjectID == "" || s.ClientEmail == "" || s.TokenURI == "" {
		return nil, errors.New("lacks one of project_id, client_email and token_uri")
	}
	block, _ := pem.Decode([]byte(s.PrivateKey))
	if block == nil {
		return nil, errors.New("its private_key is not PEM")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		k, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	if _, ok := k.(*rsa.PrivateKey); err != nil || !ok {
		return nil, errors.New("its private_key is not an RSA key")
	}
	return &s, nil
}

func vapidPublic(text string) (*ecdh.PublicKey, error) {
	raw, err := base64url(text)
	if err != nil {
		return nil, err
	}
	k, err := ecdh.P256().NewPublicKey(raw)
	if err != nil {
		return nil, errors.New("must be an uncompressed point on P-256, 65 bytes as base64url: what the page passes as applicationServerKey")
	}
	return k, nil
}

func vapidPrivate(s Secret) (*ecdh.PrivateKey, error) {
	raw, err := base64url(s.Reveal())
	if err != nil {
		return nil, err
	}
	k, err := ecdh.P256().NewPrivateKey(raw)
	if err != nil {
		return nil, errors.New("must be a P-256 scalar, 32 bytes as base64url")
	}
	return k, nil
}

// base64url takes the padding that some tools leave on.
func base64url(text string) ([]byte, error) {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil, errors.New("must be base64url: letters, digits, - and _")
	}
	return raw, nil
}
