package config

import (
	"time"

	"github.com/belfry/belfry/message"
)

// Config is everything that one process is told. Its yaml tags are the keys, env the variables after BELFRY_, and doc
// the meaning, in Markdown. A string whose key ends in _file is a path, relative to the configuration's own folder.
type Config struct {
	Instance  string          `yaml:"instance" env:"INSTANCE" doc:"This process's name among those that run the same roles. It must stay the same over a restart and differ between processes, for a restarted process ends its predecessor's transactions by it. Left out: the host name"`
	Roles     []string        `yaml:"roles" env:"ROLES" doc:"What this process does: producer, registry, trigger, fanout, senders.PLATFORM.CLASS (apns, fcm, webpush; urgent, bulk), ledger, replay. senders.PLATFORM is both classes, senders all. Left out: all"`
	DataDir   string          `yaml:"data_dir" env:"DATA_DIR" doc:"Where the embedded Kafka keeps its files, when kafka.brokers is left out"`
	Data      Data            `yaml:"data" envPrefix:"DATA_" doc:"How it keeps them"`
	Listen    string          `yaml:"listen" env:"LISTEN" doc:"Address of the HTTP API, host:port"`
	Health    string          `yaml:"health" env:"HEALTH" doc:"Address, host:port, where this process alone tells how it is, whatever its roles: /healthz and /readyz, without a key or TLS (docs/operations.md). Left out: only the HTTP API tells, of its process"`
	TLS       ServerTLS       `yaml:"tls" envPrefix:"TLS_" doc:"The HTTP API's certificate. Left out: plain HTTP"`
	Log       Log             `yaml:"log" envPrefix:"LOG_" doc:"What is written to stderr, and how"`
	Kafka     Kafka           `yaml:"kafka" envPrefix:"KAFKA_" doc:"How to reach the cluster"`
	Redis     Redis           `yaml:"redis" envPrefix:"REDIS_" doc:"How to reach the registry's view of the devices"`
	Operators []Operator      `yaml:"operators" doc:"Keys of the HTTP API for those who run Belfry: they see every lane and hold back any part of the traffic, and nothing else"`
	Apps      map[string]*App `yaml:"apps" doc:"The tenants, by name: 1 to 32 of a-z, 0-9 and -, not - first"`
	Senders   Senders         `yaml:"senders" envPrefix:"SENDERS_" doc:"How lanes send"`
	Fanout    Fanout          `yaml:"fanout" envPrefix:"FANOUT_" doc:"How far ahead of the lanes campaigns are expanded"`
}

// Default is what a configuration begins as: one process with everything in it.
func Default() *Config {
	return &Config{
		DataDir: "belfry-data",
		Data:    Data{Sync: SyncInterval},
		Listen:  "127.0.0.1:8080",
		Log:     Log{Level: "info", Format: "text"},
		Kafka:   Kafka{Prefix: "belfry."},
		Redis:   Redis{Prefix: "belfry:"},
		Senders: Senders{Transport: Transport{Wire, Wire, Wire}, Timeout: 10 * time.Second},
		Fanout:  Fanout{Budget: 5 * time.Second},
	}
}

// ServerTLS is a listener's certificate.
type ServerTLS struct {
	CertFile string `yaml:"cert_file" env:"CERT_FILE" doc:"PEM, with its chain"`
	KeyFile  string `yaml:"key_file" env:"KEY_FILE" doc:"PEM"`
}

// Data says how the embedded Kafka keeps its files.
type Data struct {
	Sync string `yaml:"sync" env:"SYNC" doc:"When what is written reaches the disk. interval: within a second, so that a power loss may take the last second. always: before it is acknowledged, which costs most of the speed (docs/operations.md)"`
}

// The values of data.sync.
const (
	SyncInterval = "interval"
	SyncAlways   = "always"
)

// Log says what is written to stderr, and how.
type Log struct {
	Level  string `yaml:"level" env:"LEVEL" doc:"debug, info, warn or error"`
	Format string `yaml:"format" env:"FORMAT" doc:"text or json"`
}

// Kafka says how to reach the cluster.
type Kafka struct {
	Brokers []string  `yaml:"brokers" env:"BROKERS" doc:"Addresses, host:port. Kafka 4.0 or later. Left out: an embedded broker in this process, which must then run all roles"`
	Prefix  string    `yaml:"prefix" env:"PREFIX" doc:"Before the name of every topic, group and transactional id"`
	TLS     ClientTLS `yaml:"tls" envPrefix:"TLS_" doc:"Left out: plain connections"`
	SASL    SASL      `yaml:"sasl" envPrefix:"SASL_" doc:"Who Belfry is to Kafka"`
}

// ClientTLS says how to trust a server, and how to show who one is.
type ClientTLS struct {
	Enabled    bool   `yaml:"enabled" env:"ENABLED" doc:"Connect over TLS"`
	CAFile     string `yaml:"ca_file" env:"CA_FILE" doc:"Certificates to trust, PEM. Left out: the system's"`
	CertFile   string `yaml:"cert_file" env:"CERT_FILE" doc:"Client certificate, PEM"`
	KeyFile    string `yaml:"key_file" env:"KEY_FILE" doc:"Its key, PEM"`
	ServerName string `yaml:"server_name" env:"SERVER_NAME" doc:"The name in the server's certificate, where it is not the one connected to"`
}

// SASL says who Belfry is to Kafka.
type SASL struct {
	Mechanism        string   `yaml:"mechanism" env:"MECHANISM" doc:"PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER. Left out: none"`
	Username         string   `yaml:"username" env:"USERNAME" doc:"For PLAIN and SCRAM"`
	Password         Secret   `yaml:"password" env:"PASSWORD" doc:"For PLAIN and SCRAM"`
	PasswordFile     string   `yaml:"password_file" env:"PASSWORD_FILE" doc:"A file that holds it"`
	Token            Secret   `yaml:"token" env:"TOKEN" doc:"For OAUTHBEARER: a bearer token that does not expire"`
	TokenFile        string   `yaml:"token_file" env:"TOKEN_FILE" doc:"A file that holds it, read anew for every connection, so that another may renew it"`
	TokenURL         string   `yaml:"token_url" env:"TOKEN_URL" doc:"For OAUTHBEARER: where to get tokens by the client credentials grant (RFC 6749 section 4.4)"`
	ClientID         string   `yaml:"client_id" env:"CLIENT_ID" doc:"With token_url"`
	ClientSecret     Secret   `yaml:"client_secret" env:"CLIENT_SECRET" doc:"With token_url"`
	ClientSecretFile string   `yaml:"client_secret_file" env:"CLIENT_SECRET_FILE" doc:"A file that holds it"`
	Scopes           []string `yaml:"scopes" env:"SCOPES" doc:"With token_url: the scopes to ask for"`
}

// Redis says how to reach the registry's view.
type Redis struct {
	Addresses    []string  `yaml:"addresses" env:"ADDRESSES" doc:"host:port of one server, or of any nodes of a cluster. Left out: an embedded Redis in this process, filled from Kafka at start"`
	Cluster      bool      `yaml:"cluster" env:"CLUSTER" doc:"It is a Redis Cluster"`
	Username     string    `yaml:"username" env:"USERNAME" doc:"ACL user"`
	Password     Secret    `yaml:"password" env:"PASSWORD" doc:"Its password, or the server's where there are no users"`
	PasswordFile string    `yaml:"password_file" env:"PASSWORD_FILE" doc:"A file that holds it"`
	TLS          ClientTLS `yaml:"tls" envPrefix:"TLS_" doc:"Left out: plain connections"`
	Prefix       string    `yaml:"prefix" env:"PREFIX" doc:"Before every key"`
}

// App is a tenant: who may call for it, and what it is to the providers.
type App struct {
	Keys      []Key     `yaml:"keys" doc:"Keys of the HTTP API"`
	APNs      *APNs     `yaml:"apns" doc:"Left out: nothing is sent to Apple's devices"`
	FCM       *FCM      `yaml:"fcm" doc:"Left out: nothing is sent to Firebase"`
	WebPush   *WebPush  `yaml:"webpush" doc:"Left out: nothing is sent to browsers"`
	Rules     []Rule    `yaml:"rules" doc:"Messages that events trigger. Left out: the app's events wait for a process whose file says it. [] for none"`
	AutoPause AutoPause `yaml:"auto_pause" doc:"When a campaign is paused by itself (docs/campaigns.md)"`
}

// Key lets a backend call the HTTP API. Only its hash is here.
type Key struct {
	Name   string   `yaml:"name" doc:"Shown in logs instead of the key"`
	Hash   string   `yaml:"hash" doc:"sha256:<hex> of the key, which should be random: openssl rand -hex 32"`
	Scopes []string `yaml:"scopes" doc:"Any of send, manage, read"`
}

// Operator is a key of somebody who runs Belfry.
type Operator struct {
	Name string `yaml:"name" doc:"Shown in logs and beside what it holds back, instead of the key"`
	Hash string `yaml:"hash" doc:"sha256:<hex> of the key, as those of apps"`
}

// AutoPause says when a campaign is paused by itself: most of a platform's outcomes within a minute are rejections of the
// message, or devices that the provider does not know.
type AutoPause struct {
	Outcomes int     `yaml:"outcomes" doc:"How many outcomes it takes to judge, at least. Left out: 100"`
	Percent  float64 `yaml:"percent" doc:"More than so many in a hundred. Left out: 50. 100: never"`
}

// APNs is an app's credential with Apple: a token key (p8) or a certificate (p12).
type APNs struct {
	KeyFile         string `yaml:"key_file" doc:"The .p8 token key from Apple's developer account"`
	KeyID           string `yaml:"key_id" doc:"Its id, 10 characters"`
	TeamID          string `yaml:"team_id" doc:"The developer team's id, 10 characters"`
	P12File         string `yaml:"p12_file" doc:"Instead of key_file: a certificate with its key, .p12"`
	P12Password     Secret `yaml:"p12_password" doc:"Its password"`
	P12PasswordFile string `yaml:"p12_password_file" doc:"A file that holds it"`
	Topic           string `yaml:"topic" doc:"The app's bundle id. Belfry adds the suffix that a push type needs"`
	URL             string `yaml:"url" doc:"Instead of https://api.push.apple.com: a simulator or a gateway"`
	SandboxURL      string `yaml:"sandbox_url" doc:"Instead of https://api.sandbox.push.apple.com"`
	CAFile          string `yaml:"ca_file" doc:"Certificates to trust for it, PEM. Left out: the system's"`
}

// FCM is an app's credential with Firebase.
type FCM struct {
	ServiceAccountFile string `yaml:"service_account_file" doc:"The service account's JSON key from the Firebase console"`
	URL                string `yaml:"url" doc:"Instead of https://fcm.googleapis.com: a simulator or a gateway"`
	TokenURL           string `yaml:"token_url" doc:"Instead of the token_uri in the service account"`
	CAFile             string `yaml:"ca_file" doc:"Certificates to trust for both, PEM. Left out: the system's"`
	PerMinute          int    `yaml:"per_minute" doc:"The project's quota: the most messages a minute, urgent and campaigns' together, of all instances. Left out: 600000, which Google gives every project"`
}

// WebPush is what an app is to browsers: its VAPID key pair (RFC 8292).
type WebPush struct {
	PublicKey      string   `yaml:"public_key" doc:"VAPID public key, base64url: what the page passes as applicationServerKey"`
	PrivateKey     Secret   `yaml:"private_key" doc:"VAPID private key, base64url"`
	PrivateKeyFile string   `yaml:"private_key_file" doc:"A file that holds it"`
	Subject        string   `yaml:"subject" doc:"Where a push service finds you: mailto: or https:"`
	AllowHosts     []string `yaml:"allow_hosts" doc:"host:port of push services that may be on a private or loopback address, or without TLS: self-hosted ones, and tests. All others must be https on a public address"`
	CAFile         string   `yaml:"ca_file" doc:"Certificates to trust, PEM. Left out: the system's"`
	Padding        int      `yaml:"padding" doc:"Encrypted messages are filled up to a multiple of this many bytes, so that their length tells a push service less, 1 to 4096. 1: not at all; 4096: all alike, which Firefox on phones does not take. Left out: 256"`
	PerMinute      int      `yaml:"per_minute" doc:"The most messages a minute to each push service, urgent and campaigns' together, of all instances: for one that says 429 to more, such as Chrome's to sites that push much and are visited little (1000). Left out: as many as it takes, which Belfry learns"`
}

// Rule sends a message when an event comes.
type Rule struct {
	Name      string          `yaml:"name" doc:"Names the rule's account: 1 to 64 letters, digits and ._-"`
	Event     string          `yaml:"event" doc:"The event's name"`
	When      string          `yaml:"when" doc:"A condition on the event (docs/campaigns.md). Left out: always"`
	Message   message.Message `yaml:"message" doc:"What is sent (docs/api.md). Its templates may name event.name and event.KEY"`
	Platforms []string        `yaml:"platforms" doc:"Any of apns, fcm, webpush. Left out: all"`
}

// Senders says how lanes send.
type Senders struct {
	Transport Transport     `yaml:"transport" envPrefix:"TRANSPORT_" doc:"Who carries a platform's requests"`
	Timeout   time.Duration `yaml:"timeout" env:"TIMEOUT" doc:"How long one request may take, 1s to 60s. Google asks for at least 10s"`
}

// Transport says who carries a platform's requests.
type Transport struct {
	APNs    string `yaml:"apns" env:"APNS" doc:"wire: Belfry's own HTTP/2 client, made for many small requests. library: sideshow/apns2, at some thirty times the CPU"`
	FCM     string `yaml:"fcm" env:"FCM" doc:"wire, or library: Google's firebase"`
	WebPush string `yaml:"webpush" env:"WEBPUSH" doc:"wire, or library: webpush-go"`
}

// The transports.
const (
	Wire    = "wire"
	Library = "library"
)

// Fanout says how far ahead of the lanes campaigns are expanded.
type Fanout struct {
	Budget time.Duration `yaml:"budget" env:"BUDGET" doc:"An expander stops while its lane has more than this much work at the rate that it drains, 1s to 10m. More hides short gaps; less lets pause and cancel act on more, and a small campaign wait less behind a large one"`
}
