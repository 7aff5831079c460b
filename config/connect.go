package config

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/belfry/belfry/registry"
	"github.com/belfry/belfry/stream"
)

// Stream is how to reach Kafka. Without brokers in the configuration it has none: whoever starts the embedded broker
// fills them in.
func (c *Config) Stream(log *slog.Logger) (*stream.Kafka, error) {
	tlsConfig, err := c.Kafka.TLS.config("kafka.tls")
	if err != nil {
		return nil, err
	}
	return &stream.Kafka{
		Brokers:  c.Kafka.Brokers,
		Prefix:   c.Kafka.Prefix,
		Instance: c.Instance,
		TLS:      tlsConfig,
		SASL:     c.Kafka.SASL.mechanism(),
		Log:      log,
	}, nil
}

// Registry is how to reach Redis.
func (c *Config) Registry() (registry.RedisConfig, error) {
	tlsConfig, err := c.Redis.TLS.config("redis.tls")
	return registry.RedisConfig{
		Addresses: c.Redis.Addresses,
		Cluster:   c.Redis.Cluster,
		Username:  c.Redis.Username,
		Password:  c.Redis.Password.Reveal(),
		TLS:       tlsConfig,
		Prefix:    c.Redis.Prefix,
	}, err
}

// Logger writes as the configuration says.
func (c *Config) Logger(w io.Writer) *slog.Logger {
	var level slog.Level
	// Validate has checked that it is one.
	_ = level.UnmarshalText([]byte(c.Log.Level))
	o := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// config is nil when TLS is not enabled.
func (t *ClientTLS) config(path string) (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	var err error
	if c.RootCAs, err = loadCA(t.CAFile); err != nil {
		return nil, fmt.Errorf("%s.ca_file: %w", path, err)
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("%s.cert_file and key_file: %w", path, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// loadCA is nil, the system's certificates, for no file.
func loadCA(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return pool, nil
}

// mechanism is nil for none.
func (s *SASL) mechanism() sasl.Mechanism {
	switch s.Mechanism {
	case "PLAIN":
		return plain.Auth{User: s.Username, Pass: s.Password.Reveal()}.AsMechanism()
	case "SCRAM-SHA-256":
		return scram.Auth{User: s.Username, Pass: s.Password.Reveal()}.AsSha256Mechanism()
	case "SCRAM-SHA-512":
		return scram.Auth{User: s.Username, Pass: s.Password.Reveal()}.AsSha512Mechanism()
	case "OAUTHBEARER":
		return oauth.Oauth(s.bearer())
	default:
		return nil
	}
}

// tokenTimeout bounds a request for a bearer token. Kafka clients wait for it while they connect.
const tokenTimeout = 10 * time.Second

// bearer returns what gets a token for each new connection.
func (s *SASL) bearer() func(context.Context) (oauth.Auth, error) {
	if s.TokenURL != "" {
		client := &clientcredentials.Config{
			ClientID: s.ClientID, ClientSecret: s.ClientSecret.Reveal(), TokenURL: s.TokenURL, Scopes: s.Scopes,
		}
		// The source outlives each connection, so that it can keep the token until it expires.
		ctx := context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Timeout: tokenTimeout})
		source := client.TokenSource(ctx)
		return func(context.Context) (oauth.Auth, error) {
			t, err := source.Token()
			if err != nil {
				return oauth.Auth{}, fmt.Errorf("get a token for Kafka from kafka.sasl.token_url: %w", withoutBody(err))
			}
			return oauth.Auth{Token: t.AccessToken}, nil
		}
	}
	return func(context.Context) (oauth.Auth, error) {
		if s.TokenFile == "" {
			return oauth.Auth{Token: s.Token.Reveal()}, nil
		}
		data, err := readLimited(s.TokenFile, maxSecret)
		if err != nil {
			return oauth.Auth{}, fmt.Errorf("kafka.sasl.token_file: %w", err)
		}
		return oauth.Auth{Token: strings.TrimSpace(string(data))}, nil
	}
}

// withoutBody keeps an authorization server's answer, which may hold anything, out of the logs: only its status stays.
func withoutBody(err error) error {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) {
		return fmt.Errorf("answer %s %s", refused.Response.Status, refused.ErrorCode)
	}
	return err
}
