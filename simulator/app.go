package simulator

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// App is a tenant's credentials at every provider, in the forms that the providers hand them out.
type App struct {
	Name   string
	APIKey string // of Belfry's own API: what the configuration knows by its hash

	APNsKey     string // the .p8 file
	KeyID       string
	TeamID      string
	Topic       string
	BetaTopic   string // another bundle id of the team's, which mismatched devices belong to
	MDMTopic    string // under which the app's devices are managed
	Project     string // of Firebase
	ClientEmail string

	VAPIDPublic  string // base64url, uncompressed point
	VAPIDPrivate string // base64url
	Subject      string
	// Former keys are those with which mismatched subscriptions were made.
	FormerVAPIDPublic, FormerVAPIDPrivate string

	index        uint16
	apnsKey      *ecdsa.PublicKey
	vapidKey     *ecdsa.PrivateKey
	serviceKey   func() *rsa.PrivateKey // made when first asked for, which takes 0.1 s
	serviceKeyID string
}

func newApp(d deriver, index uint16, name string) (*App, error) {
	n := uint64(index)
	ids := strings.ToUpper(hex.EncodeToString(d.bytes("app ids", n)))
	apns, vapid := d.p256("apns key", n), d.p256("vapid key", n)
	a := &App{
		Name:   name,
		APIKey: "bk_" + base64.RawURLEncoding.EncodeToString(d.bytes("api key", n)),
		KeyID:  ids[:10], TeamID: ids[10:20], Topic: "com.example." + name, BetaTopic: "com.example." + name + ".beta",
		MDMTopic:     "com.apple.mgmt.External." + ID(d.bytes("mdm topic", n)[:16]).String(),
		Project:      "belfry-" + name,
		ClientEmail:  "belfry@belfry-" + name + ".iam.gserviceaccount.com",
		Subject:      "mailto:ops@example.com",
		index:        index,
		apnsKey:      &apns.PublicKey,
		vapidKey:     vapid,
		serviceKey:   sync.OnceValue(func() *rsa.PrivateKey { return d.rsa2048("service account " + name) }),
		serviceKeyID: strings.ToLower(ids[20:60]),
	}
	der, err := x509.MarshalPKCS8PrivateKey(apns)
	if err != nil {
		return nil, fmt.Errorf("simulator: app %s: APNs key: %w", name, err)
	}
	a.APNsKey = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if a.VAPIDPublic, a.VAPIDPrivate, err = vapidPair(vapid); err != nil {
		return nil, fmt.Errorf("simulator: app %s: VAPID key: %w", name, err)
	}
	if a.FormerVAPIDPublic, a.FormerVAPIDPrivate, err = vapidPair(d.p256("former vapid key", n)); err != nil {
		return nil, fmt.Errorf("simulator: app %s: former VAPID key: %w", name, err)
	}
	return a, nil
}

// vapidPair is a key as browsers and senders are given it, in base64url.
func vapidPair(k *ecdsa.PrivateKey) (public, private string, err error) {
	point, err := k.PublicKey.Bytes()
	if err != nil {
		return "", "", err
	}
	scalar, err := k.Bytes()
	if err != nil {
		return "", "", err
	}
	return base64.RawURLEncoding.EncodeToString(point), base64.RawURLEncoding.EncodeToString(scalar), nil
}

// ServiceAccount is the app's Firebase service-account file. Its token_uri is this token server's.
func (p *Providers) ServiceAccount(a *App) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.serviceKey())
	if err != nil {
		return nil, fmt.Errorf("simulator: app %s: service account key: %w", a.Name, err)
	}
	return json.MarshalIndent(map[string]string{
		"type":           "service_account",
		"project_id":     a.Project,
		"private_key_id": a.serviceKeyID,
		"private_key":    string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"client_email":   a.ClientEmail,
		"client_id":      fmt.Sprintf("1000000000000000%05d", a.index),
		"auth_uri":       p.URL(OAuth) + "/auth",
		"token_uri":      p.URL(OAuth) + "/token",
	}, "", "  ")
}

// WriteFiles writes what `belfry serve` needs to send through this simulator: belfry.yaml, ca.pem, and for each app a
// directory with its credentials, API key and devices.
func (s *Simulator) WriteFiles(dir string) error {
	if err := s.WriteSetup(dir); err != nil {
		return err
	}
	for _, a := range s.world.apps {
		if err := s.writeDevices(filepath.Join(dir, a.Name), a); err != nil {
			return err
		}
	}
	return nil
}

// WriteSetup writes the same but for the devices: who has the simulator at hand needs no copy of them.
func (s *Simulator) WriteSetup(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("simulator: write files: %w", err)
	}
	if err := writeFile(filepath.Join(dir, "ca.pem"), s.CA()); err != nil {
		return err
	}
	for _, a := range s.world.apps {
		if err := s.writeApp(filepath.Join(dir, a.Name), a); err != nil {
			return err
		}
	}
	return writeFile(filepath.Join(dir, "belfry.yaml"), []byte(s.Config(dir)))
}

func (s *Simulator) writeApp(dir string, a *App) error {
	account, err := s.ServiceAccount(a)
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{
		"apns.p8": []byte(a.APNsKey), "firebase.json": account, "api-key": []byte(a.APIKey + "\n"),
	} {
		if err := writeFile(filepath.Join(dir, name), b); err != nil {
			return err
		}
	}
	return nil
}

func (s *Simulator) writeDevices(dir string, a *App) error {
	f, err := os.Create(filepath.Join(dir, "devices.ndjson"))
	if err != nil {
		return fmt.Errorf("simulator: write devices: %w", err)
	}
	w := bufio.NewWriterSize(f, 1<<18)
	err = errors.Join(s.WriteDevices(w, a.Name), w.Flush(), f.Close())
	if err != nil {
		return fmt.Errorf("simulator: write devices: %w", err)
	}
	return nil
}

func writeFile(name string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("simulator: write files: %w", err)
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		return fmt.Errorf("simulator: write files: %w", err)
	}
	return nil
}

// Config is a configuration for `belfry serve`, in YAML, with paths to the files that WriteFiles puts in dir.
func (s *Simulator) Config(dir string) string {
	var b strings.Builder
	b.WriteString("# Written by the simulator. These credentials are good for nothing else.\napps:\n")
	ca := filepath.Join(dir, "ca.pem")
	for _, a := range s.world.apps {
		hash := sha256.Sum256([]byte(a.APIKey))
		fmt.Fprintf(&b, "  %s:\n    keys:\n      - {name: all, hash: \"sha256:%x\", scopes: [send, manage, read]}\n", a.Name, hash)
		fmt.Fprintf(&b, "    apns:\n      key_file: %q\n      key_id: %q\n      team_id: %q\n      topic: %q\n      url: %q\n      sandbox_url: %q\n      ca_file: %q\n",
			filepath.Join(dir, a.Name, "apns.p8"), a.KeyID, a.TeamID, a.Topic, s.URL(APNs), s.URL(APNsSandbox), ca)
		fmt.Fprintf(&b, "    fcm:\n      service_account_file: %q\n      url: %q\n      ca_file: %q\n",
			filepath.Join(dir, a.Name, "firebase.json"), s.URL(FCM), ca)
		fmt.Fprintf(&b, "    webpush:\n      public_key: %q\n      private_key: %q\n      subject: %q\n      ca_file: %q\n      allow_hosts:\n",
			a.VAPIDPublic, a.VAPIDPrivate, a.Subject, ca)
		for id := Chrome; id < services; id++ {
			if s.endpoints[id] != nil {
				fmt.Fprintf(&b, "        - %q\n", s.Address(id))
			}
		}
	}
	return b.String()
}
